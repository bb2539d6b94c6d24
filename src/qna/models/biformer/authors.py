"""Checkpoints of the authors of BiFormer: PyTorch state dicts under other names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from qna.mixers import BiLevelRoutingAttention2d
from qna.models.authors_torch import read_authors
from qna.models.biformer.network import BiFormer
from qna.models.biformer.variants import BIFORMER_SIZES
from qna.models.family import Authors


def read(path: Path, model: str, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """State dict of `model` from a file of the authors."""
    variant, _ = BIFORMER_SIZES[model].varied(arguments)
    name = partial(authors_name, rewritten=variant.enhances_values)
    build = partial(BiFormer.of, BIFORMER_SIZES[model], **arguments)
    return read_authors(path, model, build, name, classifier="head")


def authors_name(key: str, network: BiFormer, *, rewritten: bool = False) -> str:
    """What the authors call the tensor `key` of a `network`; in their second code some names are others."""
    if key.startswith("stem.layers."):
        return key.replace("stem.layers", "downsample_layers.0")
    if not (place := re.match(r"stages\.(\d+)\.(\d+)\.(.+)", key)):
        return key.replace("head.fc.", "head.").replace("norm.norm.", "norm.")
    stage, block, rest = int(place[1]), int(place[2]), place[3]
    stem: Any = network.stem
    overlapping = stem.overlapping
    if stage and not block:
        # what halves the map: a convolution and a norm, or the other way round
        order = ("conv", "norm") if overlapping else ("norm", "conv")
        part, leaf = rest.split(".")
        return f"downsample_layers.{stage}.{order.index(part)}.{leaf}"
    mixer: Any = network.stages[stage][block].mixer  # pyright: ignore[reportIndexIssue]
    blocks = "" if overlapping else "blocks."
    number = block - (stage > 0)
    return f"stages.{stage}.{blocks}{number}.{_in_block(rest, mixer, overlapping, rewritten)}"


def _in_block(rest: str, mixer: object, overlapping: bool, rewritten: bool) -> str:
    routed = isinstance(mixer, BiLevelRoutingAttention2d)
    packed = ("qkv_linear" if rewritten else "qkv.qkv") if routed else "qkv"
    out = ("output_linear" if rewritten else "wo") if routed else "proj"
    for ours, theirs in (
        ("position.conv.", "pos_embed."),
        ("mixer.qkv.", f"attn.{packed}."),
        ("mixer.out.", f"attn.{out}."),
        ("mixer.lepe.", "attn.lepe."),
        ("mlp.fc1.", "mlp.0."),
        # between the two lie the activation and, but in the networks of Swin's layout, what they leave out
        ("mlp.fc2.", "mlp.3." if overlapping else "mlp.2."),
    ):
        if rest.startswith(ours):
            return theirs + rest[len(ours) :]
    return rest


AUTHORS = Authors(".pth", read)
