"""Stand-alone self-attention (Ramachandran et al., NeurIPS 2019) by `F.unfold` of keys and values."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from qna.bench.measure.contender import BACKWARD, Contender, Peer, Setting
from qna.bench.measure.gate import pick
from qna.bench.subjects.peers.definition import attend, by_heads, gather, inside, window_keys
from qna.bench.subjects.peers.layer import contender_of_core
from qna.bench.subjects.peers.memory_room import refuse_above_memory


def build(setting: Setting, level: str) -> Contender:
    """A query per position over its centred window, with a relative embedding in the logits."""
    k, heads = setting.window, setting.attention_heads
    head_dim, n = setting.dim // heads, setting.height * setting.width
    margin = ((k - 1) // 2, k // 2) * 2
    split = by_heads(heads)

    def unfold(t: Tensor) -> Tensor:
        taps = F.unfold(F.pad(t.permute(0, 3, 1, 2), margin), k)
        return taps.view(-1, heads, head_dim, k * k, n)

    # -inf where a tap lies outside the map
    inside_map = torch.ones(1, 1, *setting.space, device=setting.device)
    mask = F.unfold(F.pad(inside_map, margin), k).log().to(setting.torch_dtype)

    def core(query: Tensor, key: Tensor, value: Tensor, relative: Tensor) -> Tensor:
        q = query.flatten(1, 2).transpose(1, 2).unflatten(1, (heads, head_dim)) * head_dim**-0.5
        logits = torch.einsum("bhdn,bhdtn->bhtn", q, unfold(key))
        logits = logits + torch.einsum("bhdn,thd->bhtn", q, relative) + mask
        y = torch.einsum("bhtn,bhdtn->bhdn", logits.softmax(2), unfold(value))
        return y.flatten(1, 2).transpose(1, 2).unflatten(1, setting.space)

    def definition(leaves: Mapping[str, Tensor], at: Tensor) -> Tensor:
        keys = window_keys(setting, at)
        query = split(pick(leaves["query"], at))
        key, value = (split(gather(leaves[name], at, keys)) for name in ("key", "value"))
        outside = torch.where(inside(leaves["key"], keys), 0.0, float("-inf")).unsqueeze(-1)
        return attend(query, key + leaves["relative"], value, outside)

    return contender_of_core(
        setting,
        level,
        core,
        definition,
        terms=k * k + head_dim,
        tables={"relative": (k * k, heads, head_dim)},
    )


def declines(setting: Setting, level: str, mode: str) -> str | None:
    """Whether the unfolded maps fit the memory."""
    unfolded = setting.batch * setting.height * setting.width * setting.window**2 * setting.dim
    # keys and values, each a second time as products or gradients
    return refuse_above_memory(setting.device, unfolded * setting.itemsize() * (5 if mode == BACKWARD else 3))


PEERS = (Peer("sasa-unfold", "stand-alone self-attention, unfolded", build, declines),)
