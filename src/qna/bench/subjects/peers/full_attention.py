"""Attention of every position to the whole map, by torch's scaled_dot_product_attention."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from qna.bench.measure.contender import Contender, Peer, Setting
from qna.bench.measure.gate import pick
from qna.bench.subjects.peers.definition import attend, by_heads
from qna.bench.subjects.peers.layer import contender_of_core, contender_of_mixer
from qna.mixers import FullAttention2d

MAX_TFLOP = {"cpu": 0.1, "cuda": 20.0}


def build(setting: Setting, level: str) -> Contender:
    """All positions attend all positions; the window plays no part. A layer is the registry's control."""
    split = by_heads(setting.attention_heads)

    def core(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        q, k, v = (split(t).flatten(1, 2).transpose(1, 2) for t in (query, key, value))
        y = F.scaled_dot_product_attention(q, k, v)
        return y.transpose(1, 2).flatten(-2).unflatten(1, setting.space)

    def definition(leaves: Mapping[str, Tensor], at: Tensor) -> Tensor:
        # one position at a time: its keys are the whole map
        key, value = (split(leaves[name]).flatten(1, 2) for name in ("key", "value"))
        query, image = split(pick(leaves["query"], at)), at[:, 0].tolist()
        rows = [
            attend(query[i : i + 1], key[b : b + 1], value[b : b + 1], query.new_zeros(()))
            for i, b in enumerate(image)
        ]
        return torch.cat(rows)

    terms = setting.height * setting.width + setting.dim // setting.attention_heads
    if level == "op":
        return contender_of_core(setting, level, core, definition, terms=terms)

    def of_layer(leaves: Mapping[str, Tensor], at: Tensor) -> Tensor:
        maps = (leaves["x"] @ leaves["qkv.weight"].T).chunk(3, -1)
        attended = definition(dict(zip(("query", "key", "value"), maps, strict=True)), at)
        return attended @ leaves["out.weight"].T

    mixer = FullAttention2d(setting.dim, num_heads=setting.attention_heads)
    return contender_of_mixer(setting, mixer, of_layer, terms=terms + 2 * setting.dim)


def declines(setting: Setting, level: str, mode: str) -> str | None:
    """Whether the quadratic cost is beyond what a comparison can wait for."""
    n = setting.height * setting.width
    tflop, limit = 4e-12 * setting.batch * n**2 * setting.dim, MAX_TFLOP[setting.device]
    if tflop > limit:
        scores = setting.batch * setting.attention_heads * n**2 * setting.itemsize() / 2**30
        return f"{n}^2 scores per head are {tflop:.2g} TFLOP (limit {limit:g}) and {scores:.0f} GiB if stored"
    return None


PEERS = (Peer("full", "full attention (SDPA)", build, declines),)
