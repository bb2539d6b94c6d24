"""Halo attention (Vaswani et al., CVPR 2021) in timm's form: blocks of queries share a block with a halo."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from qna.bench.measure.contender import BACKWARD, Contender, Draw, Peer, Setting
from qna.bench.measure.gate import pick
from qna.bench.subjects.peers.definition import attend, by_heads, gather
from qna.bench.subjects.peers.from_timm import timm_module, without_timm
from qna.bench.subjects.peers.memory_room import refuse_above_memory


def build(setting: Setting, level: str) -> Contender:
    """Each query attends its block and a halo that holds the window around every query of the block.

    At level "op" the projections are replaced by views of one map (B, 3 C, H, W): queries, then keys and
    values per head. timm's layer has no output projection.
    """
    heads, dim, halo = setting.attention_heads, setting.dim, setting.window // 2
    block = block_size(setting)
    assert block is not None
    halo_attention = timm_module("timm.layers.halo_attn").HaloAttn
    attention = halo_attention(dim, num_heads=heads, block_size=block, halo_size=halo)
    attention = attention.to(setting.device, setting.torch_dtype)
    draw = Draw(setting)
    with torch.no_grad():
        attention.pos_embed.height_rel.normal_(std=0.5, generator=draw.generator)
        attention.pos_embed.width_rel.normal_(std=0.5, generator=draw.generator)
    if level == "op":
        attention.q, attention.kv = Channels(0, dim), Channels(dim, 3 * dim)
    x = draw.map(3 * dim if level == "op" else dim)
    leaves = {"x": x, **dict(attention.named_parameters())}

    def forward() -> Tensor:
        return attention(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    span = block + 2 * halo

    def definition(leaves: Mapping[str, Tensor], at: Tensor) -> Tensor:
        if level == "op":
            query, pairs = leaves["x"].tensor_split([dim], dim=-1)
        else:
            query = leaves["x"] @ leaves["q.weight"].flatten(1).T
            pairs = leaves["x"] @ leaves["kv.weight"].flatten(1).T
        taps = torch.arange(span, device=at.device)
        y, x = (t.flatten() for t in torch.meshgrid(taps, taps, indexing="ij"))
        in_block = at[:, 1:] % block
        start = at[:, 1:] - in_block - halo
        keys = torch.stack([start[:, :1] + y, start[:, 1:] + x], -1)
        # keys outside the map are zeros that take part in the softmax: timm's code has no mask
        key, value = by_heads(heads)(gather(pairs, at, keys)).chunk(2, dim=-1)
        q = by_heads(heads)(pick(query, at))
        down = leaves["pos_embed.height_rel"][y - in_block[:, :1] + span - 1]
        across = leaves["pos_embed.width_rel"][x - in_block[:, 1:] + span - 1]
        return attend(q, key, value, torch.einsum("phd,ptd->pth", q, down + across))

    extra = {"block": block, "span": span, "heads": heads}
    return Contender(forward, leaves, definition, span**2 + (dim if level == "layer" else 0), extra)


class Channels(nn.Module):
    """A slice of the channels, where a layer has a projection."""

    def __init__(self, first: int, last: int):
        super().__init__()
        self.range = slice(first, last)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, last - first, H, W)."""
        return x[:, self.range]


def block_size(setting: Setting) -> int | None:
    """The largest block of 4 to 8 positions that divides the map; HaloNet uses 8."""
    sizes = [b for b in (8, 7, 6, 5, 4) if setting.height % b == 0 and setting.width % b == 0]
    return sizes[0] if sizes else None


def declines(setting: Setting, level: str, mode: str) -> str | None:
    """Map sizes without a block, even windows, and memory."""
    if missing := without_timm():
        return missing
    block = block_size(setting)
    if block is None:
        return f"no block of 4 to 8 positions divides the map {setting.space}"
    if setting.window % 2 == 0:
        return f"the halo is (window - 1) / 2, and the window {setting.window} is even"
    span = block + setting.window - 1
    n = setting.batch * setting.height * setting.width
    stored = n * span**2 * (3 * setting.attention_heads + 2 * setting.dim / block**2)
    return refuse_above_memory(
        setting.device, int(stored * setting.itemsize() * (2 if mode == BACKWARD else 1))
    )


PEERS = (Peer("halo", "halo attention (timm), block 8", build, declines),)
