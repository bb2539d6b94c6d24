"""Checkpoints of the author of L2ViT: PyTorch state dicts under other names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from qna.models.authors_torch import read_authors
from qna.models.family import Authors
from qna.models.l2vit.network import L2ViT
from qna.models.l2vit.variants import L2VIT

# of a block, ours -> theirs
_IN_BLOCK = {
    "position.conv.": "cpe.0.proj.",
    "near.conv.": "cpe.1.proj.",
    "near.norm.": "norm3.",
    "near.concentration.norm.": "local_mp.bn.",
    "near.concentration.": "local_mp.",
    "mixer.out.": "attn.proj.",
    "mixer.": "attn.",
}


def read(path: Path, model: str, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """State dict of `model` from a file of the author."""
    build = partial(L2ViT.of, L2VIT[model], **arguments)
    return read_authors(path, model, build, authors_name, classifier="head")


def authors_name(key: str, network: L2ViT) -> str:
    """What the author calls the tensor `key` of a `network`."""
    if key.startswith("stem."):
        return key.replace("stem.layers.", "downsample_layers.0.proj.proj.").replace(
            "stem.norm.", "downsample_layers.0.norm."
        )
    if not (place := re.match(r"stages\.(\d+)\.(\d+)\.(.+)", key)):
        return key.replace("head.fc.", "head.")
    stage, number, rest = int(place[1]), int(place[2]), place[3]
    halved = int(stage > 0)
    if halved and not number:
        return f"downsample_layers.{stage}.{re.sub('^conv', 'proj', rest)}"
    for ours, theirs in _IN_BLOCK.items():
        if rest.startswith(ours):
            rest = theirs + rest.removeprefix(ours)
            break
    return f"stages.{stage}.{number - halved}.{rest}"


AUTHORS = Authors(".pth", read)
