"""Checkpoints of the authors of TransNeXt: PyTorch state dicts under other names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from qna.models.authors_torch import read_authors
from qna.models.family import Authors
from qna.models.transnext.network import TransNeXt
from qna.models.transnext.variants import TRANSNEXT

# of a block, ours -> theirs
_IN_BLOCK = {
    "mixer.": "attn.",
    "queries.embedding": "query_embedding",
    "queries.temperature": "temperature",
    "local_bias": "relative_pos_bias_local",
    "tokens": "learnable_tokens",
    "token_bias": "learnable_bias",
    "position_bias.": "cpb_",
    "mlp.conv.": "mlp.dwconv.dwconv.",
}
# made anew for the size of every map
TABLES = re.compile(
    r"(relative_pos_index|relative_coords_table)\d|block\d+\.\d+\.attn\.(seq_length_scale|padding_mask)"
)


def read(path: Path, model: str, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """State dict of `model` from a file of the authors; tables that follow from sizes are left out."""
    build = partial(TransNeXt.of, TRANSNEXT[model], **arguments)
    return read_authors(path, model, build, authors_name, classifier="head", left_out=TABLES.fullmatch)


def authors_name(key: str, network: TransNeXt) -> str:
    """What the authors call the tensor `key` of a `network`."""
    if key.startswith("stem."):
        return key.replace("stem.conv", "patch_embed1.proj").replace("stem.norm", "patch_embed1.norm")
    if key.startswith("norm."):
        return f"norm{len(network.stages)}.{key.removeprefix('norm.')}"
    if not (place := re.match(r"stages\.(\d+)\.(\d+)\.(.+)", key)):
        return key.replace("head.fc.", "head.")
    stage, number, rest = int(place[1]), int(place[2]), place[3]
    halved = int(stage > 0)
    if halved and not number:
        return f"patch_embed{stage + 1}.{re.sub('^conv', 'proj', rest)}"
    if rest in ("weight", "bias"):
        return f"norm{stage + 1}.{rest}"
    for ours, theirs in _IN_BLOCK.items():
        rest = re.sub(rf"(^|\.){re.escape(ours)}", rf"\g<1>{theirs}", rest)
    return f"block{stage + 1}.{number - halved}.{rest}"


AUTHORS = Authors(".pth", read)
