"""Checkpoints of the layout of the authors of SpectFormer: PyTorch state dicts under other names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from qna.models.authors_torch import join_rows, read_authors
from qna.models.family import Authors
from qna.models.spectformer.network import SpectFormer, SpectFormerH
from qna.models.spectformer.variants import SPECTFORMER, SPECTFORMER_H

# of a block, ours -> theirs
_IN_ROW = {
    r"^mixer\.weight$": "filter.complex_weight",
    r"^mixer\.out\.": "attn.proj.",
    r"^mixer\.": "attn.",
}
_IN_STAGE = {
    r"^mixer\.weight$": "attn.complex_weight",
    r"^mixer\.out\.": "attn.proj.",
    r"^mixer\.": "attn.",
    r"^mlp\.conv\.": "mlp.dwconv.dwconv.",
}


def read(path: Path, model: str, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """State dict of `model`, one row of blocks, from a file of the authors' code."""
    build = partial(SpectFormer.of, SPECTFORMER[model], **arguments)
    return read_authors(path, model, build, authors_name, classifier="head")


def read_hierarchical(path: Path, model: str, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """State dict of `model`, in stages, from a file of the authors' code.

    Without `aux_weight` the second head is left out.
    """
    build = partial(SpectFormerH.of, SPECTFORMER_H[model], **arguments)
    variant, _ = SPECTFORMER_H[model].varied(arguments)
    return read_authors(
        path,
        model,
        build,
        authors_name_hierarchical,
        classifier="head",
        left_out=lambda name: not variant.aux_weight and name.startswith("aux_head."),
        joined=_join_queries,
    )


def authors_name(key: str, network: SpectFormer) -> str:
    """What the authors call the tensor `key` of a `network` of one row."""
    if key == "stem.position":
        return "pos_embed"
    if place := re.match(r"stages\.(\d+)\.0\.(.+)", key):
        return f"blocks.{place[1]}.{_replaced(place[2], _IN_ROW)}"
    return key.replace("stem.conv.", "patch_embed.proj.").replace("head.fc.", "head.")


def authors_name_hierarchical(key: str, network: SpectFormerH) -> str:
    """What the authors call the tensor `key` of a `network` in stages; queries and keys as one."""
    if key.startswith("class_block."):
        rest = key.removeprefix("class_block.").replace("attention.out.", "attention.proj.")
        return f"post_network.0.{rest.replace('attention.', 'attn.')}"
    if key.startswith("stem."):
        rest = re.sub(r"^conv\.", "proj.", key.removeprefix("stem."))
        return f"patch_embed1.{rest.replace('layers.', 'conv.')}"
    if not (place := re.match(r"stages\.(\d+)\.(\d+)\.(.+)", key)):
        return key.replace("last_norm.", f"norm{len(network.stages)}.").replace("head.fc.", "head.")
    stage, number, rest = int(place[1]), int(place[2]), place[3]
    halved = int(stage > 0)
    if halved and not number:
        return f"patch_embed{stage + 1}.{re.sub('^conv', 'proj', rest)}"
    if rest in ("weight", "bias"):
        return f"norm{stage + 1}.{rest}"
    return f"block{stage + 1}.{number - halved}.{_replaced(rest, _IN_STAGE)}"


def _replaced(rest: str, names: Mapping[str, str]) -> str:
    for ours, theirs in names.items():
        if (name := re.sub(ours, theirs, rest)) != rest:
            return name
    return rest


def _join_queries(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Queries, and keys with values, of blocks as one linear map; those of the class token stay apart."""
    found = dict(found)
    for name in [n for n in found if re.fullmatch(r"block\d+\.\d+\.attn\.q\.(weight|bias)", n)]:
        join_rows(found, [name, name.replace(".q.", ".kv.")], name.replace(".q.", ".qkv."))
    return found


AUTHORS = Authors(".pth", read)
AUTHORS_H = Authors(".pth", read_hierarchical)
