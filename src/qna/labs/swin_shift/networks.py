"""Networks that are alike but for where their windows lie, and their training."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from qna.labs import classifying
from qna.labs.one_stage import one_stage
from qna.labs.row import Figure
from qna.labs.swin_shift.config import SwinShiftConfig
from qna.mixers import ShiftedWindowAttention2d, WindowAttention2d
from qna.models._parts.block import MixerBlock

CONTENDERS = SHIFTED, UNSHIFTED, WHOLE = "shifted", "unshifted", "whole-map"


def build(name: str, config: SwinShiftConfig, image: torch.Size, classes: int) -> nn.Module:
    """A contender for images of the shape (C, H, W)."""
    size = -(-max(image[1:]) // config.patch_size)
    blocks = []
    for i in range(config.blocks):
        kind = ShiftedWindowAttention2d if name == SHIFTED and i % 2 else WindowAttention2d
        mixer = kind(
            config.dim,
            num_heads=config.dim // 16,
            window_size=size if name == WHOLE else config.window,
            bias=True,
        )
        blocks.append(MixerBlock(config.dim, mixer, out_dim=config.dim, mlp_ratio=2))
    return one_stage(blocks, channels=image[0], classes=classes, dim=config.dim, patch_size=config.patch_size)


def train_all(config: SwinShiftConfig, seed: int, rate: float) -> list[Figure]:
    """Train every contender alike, on the same images in the same order, and measure each."""
    networks = {name: partial(build, name, config) for name in CONTENDERS}
    return classifying.compare(config, networks, seed, rate)
