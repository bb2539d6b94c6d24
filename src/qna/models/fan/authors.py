"""Checkpoints of the authors of FAN and of TAP: PyTorch state dicts under other names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from qna.models.authors_torch import join_rows, read_authors
from qna.models.family import Authors
from qna.models.fan.network import FullyAttentionalNetwork
from qna.models.fan.variants import FAN, TAP_FAN

# inside a block of positions and channels, of the class token, and of ConvNeXt: ours -> theirs
_BLOCK = {
    "mixer.out.": "attn.proj.",
    "mixer.": "attn.",
    "scale1.gamma": "gamma1",
    "scale2.gamma": "gamma2",
    "pool.": "dilation_predictor.",
    "mlp.conv1.": "mlp.mlp_v.dwconv.conv1.",
    "mlp.conv2.": "mlp.mlp_v.dwconv.conv2.",
    "mlp.bn.": "mlp.mlp_v.dwconv.bn.",
    "mlp.norm.": "mlp.norm_v.",
    "mlp.fc": "mlp.mlp_v.fc",
    "mlp.gamma": "mlp.mlp_v.gamma",
}
_CLASS = {
    "attention.out.": "attn.proj.",
    "attention.": "attn.",
    "scale1.gamma": "gamma1",
    "scale2.gamma": "gamma2",
}
_CONVNEXT = {"conv.": "conv_dw.", "scale.gamma": "gamma"}
# before the first block of positions of a hybrid
_BEFORE = {"conv.": "patch_embed.proj.", "linear.": "pos_embed.token_projection."}
# the same of all networks
_WHOLE = {
    "stem.conv.": "patch_embed.backbone.stem.0.",
    "stem.norm.": "patch_embed.backbone.stem.1.",
    "stem.position.linear.": "pos_embed.token_projection.",
    "class_block.token": "cls_token",
    "last_norm.": "norm.",
    "head.fc.": "head.",
}


def read(path: Path, model: str, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """State dict of `model` from a file of the authors' code, of either of its layouts.

    Queries, keys and values of a class token's attention are three linear maps there, or one; the embedding
    of positions begins with "pos_embed" or "pos_embeder".
    """
    build = partial(FullyAttentionalNetwork.of, {**FAN, **TAP_FAN}[model], **arguments)
    return read_authors(path, model, build, authors_name, classifier="head", joined=_join)


def authors_name(key: str, network: FullyAttentionalNetwork) -> str:
    """What the authors call the tensor `key` of a `network`, queries and keys as `_join` calls them."""
    if place := re.match(r"stem\.layers\.(\d+)\.(.+)", key):
        # a convolution, its norm and an activation are two there, and the first two of them one
        return f"patch_embed.proj.{2 * (int(place[1]) // 3)}.{int(place[1]) % 3}.{place[2]}"
    if place := re.match(r"class_block\.blocks\.(\d+)\.(.+)", key):
        return f"cls_attn_blocks.{place[1]}.{_renamed(place[2], _CLASS)}"
    if place := re.match(r"stages\.(\d+)\.(\d+)\.(.+)", key):
        return _name_in_stage(int(place[1]), int(place[2]), place[3], network)
    return _renamed(key, _WHOLE)


def _name_in_stage(stage: int, number: int, rest: str, network: FullyAttentionalNetwork) -> str:
    conv_stages = len(network.conv_dims)
    if stage < conv_stages:
        where = f"patch_embed.backbone.stages.{stage}"
        if stage and not number:
            return f"{where}.downsample.{rest.replace('norm.', '0.').replace('conv.', '1.')}"
        return f"{where}.blocks.{number - int(stage > 0)}.{_renamed(rest, _CONVNEXT)}"
    if stage == conv_stages and conv_stages and number < 2:
        return _renamed(rest, _BEFORE)
    return f"blocks.{stage - conv_stages}.{_renamed(rest, _BLOCK)}"


def _renamed(rest: str, names: Mapping[str, str]) -> str:
    for ours, theirs in names.items():
        if rest.startswith(ours):
            return theirs + rest.removeprefix(ours)
    return rest


def _join(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values as one linear map in blocks, as two of the class token."""
    found = {re.sub(r"^pos_embeder\.", "pos_embed.", name): tensor for name, tensor in found.items()}
    for name in [n for n in found if re.fullmatch(r"blocks\.\d+\.attn\.q\.(weight|bias)", n)]:
        join_rows(found, [name, name.replace(".q.", ".kv.")], name.replace(".q.", ".qkv."))
    for name in [n for n in found if re.fullmatch(r"cls_attn_blocks\.\d+\.attn\.k\.(weight|bias)", n)]:
        join_rows(found, [name, name.replace(".k.", ".v.")], name.replace(".k.", ".kv."))
    for name in [n for n in found if re.fullmatch(r"cls_attn_blocks\.\d+\.attn\.qkv\.(weight|bias)", n)]:
        whole = found.pop(name)
        query = len(whole) // 3 if whole.ndim else 0
        found[name.replace(".qkv.", ".q.")] = whole[:query]
        found[name.replace(".qkv.", ".kv.")] = whole[query:]
    return found


AUTHORS = Authors(".pth", read)
