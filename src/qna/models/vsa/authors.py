"""Checkpoints of the authors of ViTAEv2 with varied-size windows: PyTorch state dicts under other names."""

from __future__ import annotations

import logging
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
from qna.models.vsa.variants import VITAEV2_VSA
from qna.models.vsa.vitae import ViTAEv2VSA
from qna.models.whole import check_whole

logger = logging.getLogger("qna")

# inside a cell, ours -> theirs
_IN_CELL = {
    r"^pyramid\.dilated(\d+)\.": lambda m: f"PRM.convs.{int(m[1]) - 1}.0.",
    r"^convolutions\.": "PCM.",
    r"^cpe\.conv\.": "pos.",
    r"^mixer\.out\.": "attn.proj.",
    r"^mixer\.(scales|offsets)\.": r"attn.sampling_\1.2.",
    r"^mixer\.position_table$": "attn.relative_position_bias_table",
    r"^mixer\.": "attn.",
}
# all of a layer of attention are convolutions of one tap there
_AS_CONVOLUTION = re.compile(r"attn\.(qkv|proj|sampling_\w+\.2)\.weight$")
# what is made of the sizes here
_TABLES = re.compile(r".*\.attn\.(relative_position_index|base_coords|coords)")


def read(path: Path, model: str, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """State dict of `model` from a file of the authors, whole or not at all.

    Tables of indices and of coordinates are left out, and a line of the log "qna" says so.

    Raises:
        InvalidInput: a file that cannot be read, or the first tensor that is missing, left over, of another
            shape or no floating-point numbers.
    """
    found = read_weights(path)
    tables = [name for name in found if _TABLES.fullmatch(name)]
    if tables:
        logger.warning("left out of %s: %d tables of places, made anew for every map", path, len(tables))
    found = {name: tensor for name, tensor in found.items() if name not in tables}
    head = found.get("head.weight")
    classes = len(head) if head is not None and head.ndim and len(head) else 1000
    with torch.device("meta"):
        own = ViTAEv2VSA.of(VITAEV2_VSA[model], **{"num_classes": classes, **arguments}).state_dict()
    theirs = {key: authors_name(key) for key in own}
    shapes = {theirs[key]: authors_shape(theirs[key], tuple(tensor.shape)) for key, tensor in own.items()}
    check_whole(str(path), model, shapes, {name: tuple(t.shape) for name, t in found.items()})
    for key, name in theirs.items():
        if own[key].is_floating_point() != found[name].is_floating_point():
            wanted = "of floating point" if own[key].is_floating_point() else "whole numbers"
            raise InvalidInput(f"{path}: {name} is {short(found[name].dtype)}, it must be {wanted}")
    # of several that share one storage each gets its own
    return {key: found[name].reshape(own[key].shape).clone() for key, name in theirs.items()}


def authors_name(key: str) -> str:
    """What the authors call our tensor `key`."""
    if key.startswith("stem."):
        return f"layers.0.RC.{_in_cell(key.removeprefix('stem.'))}"
    if not (place := re.match(r"stages\.(\d+)\.(\d+)\.(.+)", key)):
        return key.replace("head.fc.", "head.")
    stage, number = int(place[1]), int(place[2])
    # the first stage's reduction is the stem here
    cell = f"NC.{number - (stage > 0)}" if not stage or number else "RC"
    return f"layers.{stage}.{cell}.{_in_cell(place[3])}"


def authors_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape there of what has `shape` here and is called `name` there."""
    if _AS_CONVOLUTION.search(name):
        return (*shape, 1, 1)
    return (shape[0] * shape[1], shape[2]) if name.endswith("relative_position_bias_table") else shape


def _in_cell(rest: str) -> str:
    for ours, theirs in _IN_CELL.items():
        rest = re.sub(ours, theirs, rest)
    return rest


AUTHORS = Authors(".pth", read)
