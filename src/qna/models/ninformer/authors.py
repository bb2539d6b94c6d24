"""Checkpoints of NiNformer's authors: PyTorch state dicts under other names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from qna.models.authors_torch import read_authors
from qna.models.family import Authors
from qna.models.ninformer.network import NiNformer
from qna.models.ninformer.variants import NINFORMER

# ours -> theirs, inside a block
_IN_BLOCK = {
    "mixer.token_norm.": "mgu.Mixer.token_mix.0.",
    # between norm and MLP they turn the map over, and dropout stands behind the activation
    "mixer.token_mlp.fc1.": "mgu.Mixer.token_mix.2.net.0.",
    "mixer.token_mlp.fc2.": "mgu.Mixer.token_mix.2.net.3.",
    "mixer.channel_norm.": "mgu.Mixer.channel_mix.0.",
    "mixer.channel_mlp.fc1.": "mgu.Mixer.channel_mix.1.net.0.",
    "mixer.channel_mlp.fc2.": "mgu.Mixer.channel_mix.1.net.3.",
    "mixer.proj.": "mgu.proj.",
    "mlp.fc1.": "ffn.net.0.",
    "mlp.fc2.": "ffn.net.3.",
}


def read(path: Path, model: str, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """State dict of `model` from a file of the authors."""
    build = partial(NiNformer.of, NINFORMER[model], **arguments)
    return read_authors(path, model, build, authors_name, classifier="classifier")


def authors_name(key: str, network: nn.Module | None = None) -> str:
    """What the authors call what is our tensor `key`."""
    if not (place := re.match(r"stages\.(\d+)\.0\.(.+)", key)):
        return key.replace("stem.conv.", "patcher.").replace("head.fc.", "classifier.")
    rest = place[2]
    for ours, theirs in _IN_BLOCK.items():
        rest = rest.replace(ours, theirs) if rest.startswith(ours) else rest
    return f"model.{place[1]}.{rest}"


AUTHORS = Authors(".pth", read)
