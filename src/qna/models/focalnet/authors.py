"""Checkpoints of FocalNet's authors, and of timm's copies of them, under the names of either."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qna._core.backends import short
from qna._core.errors import InvalidInput
from qna.models.authors_torch import read_weights
from qna.models.family import Authors
from qna.models.focalnet.network import FocalNet
from qna.models.focalnet.variants import FOCALNET
from qna.models.whole import check_whole

# ours -> theirs, inside a block
_IN_BLOCK = {
    # one map there: queries, context, gates
    "mixer.query_gates.": "modulation.f.",
    "mixer.context.": "modulation.f.",
    "mixer.modulator.": "modulation.h.",
    "mixer.out.": "modulation.proj.",
    "mixer.norm.": "modulation.ln.",
    "scale1.gamma": "gamma_1",
    "scale2.gamma": "gamma_2",
}
_TOGETHER = re.compile(r"modulation\.f\.\w+$")
_LINEAR = re.compile(r"blocks\.\d+\.(modulation\.(f|h|proj)|mlp\.fc\d)\.weight$")
_AS_CONVOLUTION = re.compile(r"modulation\.h\.weight$")


def read(path: Path, model: str, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """State dict of `model` from a file of the authors or of timm."""
    return from_authors(read_weights(path), model, arguments, name=str(path))


def from_authors(
    weights: Mapping[str, Tensor],
    model: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    name: str = "the checkpoint",
) -> dict[str, Tensor]:
    """State dict of `model` from the authors' or timm's.

    Args:
        weights: theirs; which of the two is told by their names.
        model: a name in `FOCALNET`.
        arguments: how the model differs from that variant; ``num_classes`` goes before what the classifier
            in `weights` says.
        name: of the weights, for errors.

    Raises:
        InvalidInput: the first tensor that is missing, left over, of another shape or no floating-point
            numbers.
    """
    timm = "stem.proj.weight" in weights
    head = weights.get("head.fc.weight" if timm else "head.weight")
    arguments = {
        "num_classes": len(head) if head is not None and head.ndim and len(head) else 1000,
        **(arguments or {}),
    }
    variant, others = FOCALNET[model].varied(arguments)
    with torch.device("meta"):
        own = FocalNet(variant, **others).state_dict()
    authors = {key: authors_name(key, isotropic=variant.isotropic) for key in own}
    theirs = authors
    if timm:
        theirs = {key: timms_name(named, post_norm=variant.post_norm) for key, named in authors.items()}
    shapes: dict[str, tuple[int, ...]] = {}
    for key, tensor in own.items():
        shape = tuple(tensor.shape)
        if _TOGETHER.search(authors[key]):
            rows = shape[0] + shapes.get(theirs[key], (0,))[0]
            shape = (rows, *shape[1:])
        convolution = (_LINEAR if timm else _AS_CONVOLUTION).search(authors[key])
        shapes[theirs[key]] = (*shape[:2], 1, 1) if convolution else shape
    try:
        check_whole(name, model, shapes, {key: tuple(t.shape) for key, t in weights.items()})
    except InvalidInput as error:
        lacks = [n for n in shapes if n not in weights]
        # nothing else is missing
        headless = head is None and all(n.startswith("head.") for n in lacks)
        hint = "; of one without a classifier say num_classes=0" if headless else ""
        raise InvalidInput(f"{error}{hint}") from None
    found = {}
    for key, tensor in own.items():
        given = weights[theirs[key]]
        if not given.is_floating_point():
            raise InvalidInput(
                f"{name}: {theirs[key]} is {short(given.dtype)}, a weight must be of floating point"
            )
        if _TOGETHER.search(authors[key]):
            given = _part(key, given, len(tensor))
        # of several that share one storage each gets its own
        found[key] = given.reshape(tensor.shape).clone()
    return found


def _part(key: str, together: Tensor, rows: int) -> Tensor:
    """Of the map of queries, context and gates, in this order, the rows that `key` has."""
    if ".context." in key:
        return together[rows : 2 * rows]
    dim = len(together) - rows
    return torch.cat([together[:dim], together[2 * dim :]])


def authors_name(key: str, *, isotropic: bool) -> str:
    """What the authors call what is our tensor `key`, or a part of what they call so."""
    if key.startswith("stem."):
        return key.replace("stem.conv", "patch_embed.proj").replace("stem.norm", "patch_embed.norm")
    if not (place := re.match(r"stages\.(\d+)\.(\d+)\.(.+)", key)):
        return key.replace("head.fc.", "head.")
    stage, block, rest = int(place[1]), int(place[2]), place[3]
    if isotropic:
        # every block shows its map here
        stage, block = 0, stage
    elif stage and not block:
        # what halves the map ends the stage before
        return f"layers.{stage - 1}.downsample.{rest.replace('conv', 'proj')}"
    rest = re.sub(
        r"^mixer\.level(\d+)\.", lambda level: f"modulation.focal_layers.{int(level[1]) - 1}.0.", rest
    )
    for ours, theirs in _IN_BLOCK.items():
        rest = rest.replace(ours, theirs)
    return f"layers.{stage}.blocks.{block - (stage > 0)}.{rest}"


def timms_name(name: str, *, post_norm: bool) -> str:
    """What timm calls what the authors call `name`, in a network of blocks that end or begin in norms."""
    name = name.replace("patch_embed.", "stem.").replace("modulation.ln.", "modulation.norm.")
    name = re.sub(r"gamma_(\d)$", r"ls\1.gamma", name)
    name = re.sub(r"^head\.", "head.fc.", name)
    if place := re.match(r"layers\.(\d+)\.downsample\.(.+)", name):
        # as here, what halves the map begins a stage
        return f"layers.{int(place[1]) + 1}.downsample.{place[2]}"
    return re.sub(r"\.(norm\d)\.", r".\1_post.", name) if post_norm else name


AUTHORS = Authors(".pth", read)
