"""Checkpoints of GC ViT: the authors' PyTorch state dicts, and timm's of its `gcvit_*`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from qna.models.authors_torch import read_authors, read_weights
from qna.models.family import Authors
from qna.models.gcvit.network import GCViT
from qna.models.gcvit.variants import GCVIT

# inside a block, ours -> theirs
_IN_BLOCK = {
    "authors": {
        "mixer.position_table": "attn.relative_position_bias_table",
        "mixer.kv.": "attn.qkv.",
        "mixer.out.": "attn.proj.",
        "mixer.": "attn.",
        "scale1.gamma": "gamma1",
        "scale2.gamma": "gamma2",
    },
    "timm": {
        "mixer.position_table": "attn.rel_pos.relative_position_bias_table",
        "mixer.kv.": "attn.qkv.",
        "mixer.out.": "attn.proj.",
        "mixer.": "attn.",
        "scale1.": "ls1.",
        "scale2.": "ls2.",
    },
}
# of a `DepthwiseResidual`
_IN_RESIDUAL = {
    "authors": {
        "conv.": "conv.0.",
        "excite.fc1.": "conv.2.fc.0.",
        "excite.fc2.": "conv.2.fc.2.",
        "linear.": "conv.3.",
    },
    "timm": {"conv.": "conv_dw.", "excite.fc1.": "se.fc1.", "excite.fc2.": "se.fc2.", "linear.": "conv_pw."},
}
# made of the sizes here
_TABLES = re.compile(r".*\.relative_position_index")


def read(path: Path, model: str, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """State dict of `model` from a file of the authors or of timm; tables of indices are left out."""
    kind = "timm" if "stem.conv1.weight" in read_weights(path) else "authors"
    return read_authors(
        path,
        model,
        partial(GCViT.of, GCVIT[model], **arguments),
        timm_name if kind == "timm" else authors_name,
        classifier="head.fc" if kind == "timm" else "head",
        left_out=_TABLES.fullmatch,
    )


def authors_name(key: str, network: GCViT) -> str:
    """What the authors call the tensor `key` of a `network`."""
    if not (place := _place(key, network)):
        return key.replace("head.fc.", "head.").replace("stem.conv.", "patch_embed.proj.")
    stage, kind, number, rest = place
    if kind == "halving":
        # at the end of the stage before
        where = f"levels.{stage - 1}.downsample" if stage else "patch_embed.conv_down"
        return f"{where}.{_in_halving(rest, 'authors')}"
    if kind == "query":
        return f"levels.{stage}.q_global_gen.to_q_global.{number}.{_renamed(rest, _IN_RESIDUAL['authors'])}"
    return f"levels.{stage}.blocks.{number}.{_renamed(rest, _IN_BLOCK['authors'])}"


def timm_name(key: str, network: GCViT) -> str:
    """What timm calls it."""
    if key.startswith("norm."):
        return f"stages.{len(network.stages) - 1}.{key}"
    if not (place := _place(key, network)):
        return key.replace("stem.conv.", "stem.conv1.")
    stage, kind, number, rest = place
    if kind == "halving":
        where = f"stages.{stage}.downsample" if stage else "stem.down"
        return f"{where}.{_in_halving(rest, 'timm')}"
    if kind == "query":
        renamed = _renamed(rest, _IN_RESIDUAL["timm"])
        return f"stages.{stage}.global_block.blocks.conv{number + 1}.{renamed}"
    return f"stages.{stage}.blocks.{number}.{_renamed(rest, _IN_BLOCK['timm'])}"


def _place(key: str, network: GCViT) -> tuple[int, str, int, str] | None:
    """Of a tensor of a stage its stage, what holds it, the number of that among its like, and the rest.

    What halves the map in the stem is that of stage 0.
    """
    if key.startswith("stem.halving."):
        return 0, "halving", 0, key.removeprefix("stem.halving.")
    if not (found := re.match(r"stages\.(\d+)\.(\d+)\.(.+)", key)):
        return None
    stage, number, rest = int(found[1]), int(found[2]), found[3]
    # before the blocks come what halves the map, and what makes the query where there is a block for it
    queried = int(network.depths[stage] > 1)
    before = int(stage > 0) + queried
    if number >= before:
        return stage, "block", number - before, rest
    if stage and not number:
        return stage, "halving", 0, rest
    layer, _, rest = rest.partition(".")
    # a maximum, without tensors, follows each residual
    return stage, "query", int(layer) // 2, rest


def _in_halving(rest: str, kind: str) -> str:
    if rest.startswith("residual."):
        inside = _renamed(rest.removeprefix("residual."), _IN_RESIDUAL[kind])
        return f"conv_block.{inside}" if kind == "timm" else inside
    return rest.replace("conv.", "reduction.")


def _renamed(rest: str, names: Mapping[str, str]) -> str:
    for ours, theirs in names.items():
        if rest.startswith(ours):
            return theirs + rest.removeprefix(ours)
    return rest


AUTHORS = Authors(".pth", read)
