"""Networks of one stage that differ in how a position sees the rest of the map."""

from __future__ import annotations

from typing import Any

from torch import nn

from qna.labs.transnext_shift.config import TransNeXtShiftConfig
from qna.mixers import AggregatedAttention2d, ShiftedWindowAttention2d, WindowAttention2d
from qna.models._parts.block import NORM_EPS, MixerBlock
from qna.models._parts.hierarchy import Hierarchy, Stage
from qna.models._parts.patches import NormedPatchStem

CONTENDERS = AGGREGATED, SWIN = "aggregated", "swin"


def build(name: str, config: TransNeXtShiftConfig, channels: int) -> Hierarchy:
    """A contender; no position sees anything of others but by its attention."""
    dim = config.dim
    blocks = [
        MixerBlock(dim, _mixer(name, config, i), out_dim=dim, mlp_ratio=2, norm_eps=NORM_EPS)
        for i in range(config.blocks)
    ]
    return Hierarchy(
        NormedPatchStem(channels, dim, config.patch_size),
        [Stage(*blocks)],
        dims=[dim],
        strides=[1],
        norm=nn.LayerNorm(dim, eps=NORM_EPS),
        pool_heads=1,
        in_chans=channels,
        num_classes=10,
        global_pool="avg",
        img_size=config.frame,
        drop_rate=0.0,
    )


def _mixer(name: str, config: TransNeXtShiftConfig, block: int) -> nn.Module:
    heads: dict[str, Any] = {"num_heads": config.dim // 16}
    if name == AGGREGATED:
        size = -(-config.frame // config.patch_size)
        return AggregatedAttention2d(config.dim, pool_ratio=config.cell, pretrain_size=size, **heads)
    kind = ShiftedWindowAttention2d if block % 2 else WindowAttention2d
    return kind(config.dim, window_size=config.window, bias=True, **heads)
