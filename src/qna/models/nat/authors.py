"""Checkpoints of the authors of NAT and DiNAT: PyTorch state dicts under other names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from qna.models.authors_torch import read_authors
from qna.models.family import Authors
from qna.models.nat.network import NAT
from qna.models.nat.reductions import OverlappingStem
from qna.models.nat.variants import DINAT_SIZES, NAT_SIZES

# of a block, ours -> theirs
_IN_BLOCK = {
    "mixer.": "attn.",
    "scale1.gamma": "gamma1",
    "scale2.gamma": "gamma2",
}


def read(path: Path, model: str, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """State dict of `model` from a file of the authors."""
    variant = {**NAT_SIZES, **DINAT_SIZES}[model]
    build = partial(NAT.of, variant, **arguments)
    return read_authors(path, model, build, authors_name, classifier="head")


def authors_name(key: str, network: NAT) -> str:
    """What the authors call the tensor `key` of a `network`."""
    convolutions = isinstance(network.stem, OverlappingStem)
    if key.startswith("stem.norm."):
        return key.replace("stem", "patch_embed")
    if key.startswith("stem."):
        return re.sub(r"^stem\.convs?", "patch_embed.proj", key)
    if not (place := re.match(r"stages\.(\d+)\.(\d+)\.(.+)", key)):
        return key.replace("head.fc.", "head.")
    stage, block, rest = int(place[1]), int(place[2]), place[3]
    stages = "levels" if convolutions else "layers"
    if stage and not block:
        # what halves the map ends the stage before
        return f"{stages}.{stage - 1}.downsample.{re.sub('^(conv|linear)', 'reduction', rest)}"
    for ours, theirs in _IN_BLOCK.items():
        rest = rest.replace(ours, theirs)
    return f"{stages}.{stage}.blocks.{block - (stage > 0)}.{rest}"


AUTHORS = Authors(".pth", read)
