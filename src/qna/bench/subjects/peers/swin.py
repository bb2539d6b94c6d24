"""Shifted-window attention (Liu et al., ICCV 2021): the attention of timm's SwinTransformerBlock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna.bench.measure.contender import Contender, Draw, Peer, Setting
from qna.bench.measure.gate import pick
from qna.bench.subjects.peers.definition import attend, by_heads, gather
from qna.bench.subjects.peers.from_timm import timm_module, without_timm

MASKED = -100.0  # what timm adds to the logits of positions that the shift brought together


def build(setting: Setting, level: str) -> Contender:
    """Windows that tile the map, shifted by half a window; SDPA inside.

    At level "op" queries, keys and values come as one map (B, H, W, 3 C) and both projections are left out.
    """
    k, heads, dim = setting.window, setting.attention_heads, setting.dim
    block = (
        timm_module("timm.models.swin_transformer")
        .SwinTransformerBlock(
            dim, setting.space, num_heads=heads, window_size=k, shift_size=k // 2, qkv_bias=False
        )
        .to(setting.device, setting.torch_dtype)
    )
    attention = block.attn
    attention.fused_attn = True  # faster than timm's default, which forms the scores
    draw = Draw(setting)
    with torch.no_grad():
        attention.relative_position_bias_table.normal_(std=0.5, generator=draw.generator)
    if level == "op":
        attention.qkv, attention.proj = nn.Identity(), nn.Identity()
    x = draw.map(3 * dim if level == "op" else dim)
    leaves = {"x": x, **dict(attention.named_parameters())}
    (window, _), (shift, _) = block.window_size, block.shift_size

    def forward() -> Tensor:
        return block._attn(x) if level == "layer" else _between_projections(block, x)

    def definition(leaves: Mapping[str, Tensor], at: Tensor) -> Tensor:
        qkv = leaves["x"] if level == "op" else leaves["x"] @ leaves["qkv.weight"].T
        # as timm: shift cyclically, then pad the end with zeros, which take part
        shifted = qkv.roll((-shift, -shift), dims=(1, 2))
        padded = [-(-n // window) * window for n in setting.space]
        shifted = F.pad(shifted, (0, 0, 0, padded[1] - setting.width, 0, padded[0] - setting.height))
        query, key, value = (by_heads(heads)(t) for t in shifted.chunk(3, dim=-1))
        size = torch.tensor(setting.space, device=at.device)
        place = (at[:, 1:] - shift) % size
        taps = torch.arange(window, device=at.device)
        y, x = (t.flatten() for t in torch.meshgrid(taps, taps, indexing="ij"))
        start = place - place % window
        keys = torch.stack([start[:, :1] + y, start[:, 1:] + x], -1)
        offset = place[:, None] - keys + window - 1
        bias = leaves["relative_position_bias_table"][offset[..., 0] * (2 * window - 1) + offset[..., 1]]
        region = [_region(c, n, window, shift) for c, n in zip(keys.unbind(-1), padded, strict=True)]
        own = [_region(c, n, window, shift) for c, n in zip(place.unbind(-1), padded, strict=True)]
        apart = (region[0] != own[0][:, None]) | (region[1] != own[1][:, None])
        mask = torch.where(apart, MASKED if shift else 0.0, 0.0).unsqueeze(-1)
        query = pick(query, torch.cat([at[:, :1], place], 1))
        out = attend(query, gather(key, at, keys), gather(value, at, keys), bias + mask)
        return out if level == "op" else out @ leaves["proj.weight"].T + leaves["proj.bias"]

    extra = {"shift": shift, "heads": heads}
    return Contender(forward, leaves, definition, window**2 + (2 * dim if level == "layer" else 0), extra)


def _between_projections(block: Any, qkv: Tensor) -> Tensor:
    """timm's `_attn`, which wants as many channels out as in, for a map (B, H, W, 3 C)."""
    swin = timm_module("timm.models.swin_transformer")
    (_, height, width, _), window = qkv.shape, block.window_size
    shift = tuple(block.shift_size)
    x = qkv.roll([-s for s in shift], dims=(1, 2)) if any(shift) else qkv
    x = F.pad(x, (0, 0, 0, -width % window[1], 0, -height % window[0]))
    padded = x.shape[1:3]
    x = block.attn(swin.window_partition(x, window).flatten(1, 2), mask=block.attn_mask)
    x = swin.window_reverse(x.unflatten(1, window), window, *padded)[:, :height, :width].contiguous()
    return x.roll(shift, dims=(1, 2)) if any(shift) else x


def _region(place: Tensor, padded: int, window: int, shift: int) -> Tensor:
    """Which of the three bands, that the shift must keep apart, a shifted coordinate is in."""
    return (place >= padded - window).long() + (place >= padded - shift).long()


def declines(setting: Setting, level: str, mode: str) -> str | None:
    """Nothing but a missing timm."""
    return without_timm()


PEERS = (Peer("swin", "shifted windows (timm's Swin block)", build, declines),)
