"""Networks that are alike but for the queries of every second block, and their training."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from qna.labs import classifying
from qna.labs.gcvit_global.config import GCViTGlobalConfig
from qna.labs.one_stage import one_stage
from qna.labs.row import Figure
from qna.mixers import GlobalContextAttention2d, ShiftedWindowAttention2d, WindowAttention2d
from qna.mixers.global_context import GlobalQuery
from qna.models._parts.block import MixerBlock
from qna.models.gcvit.stages import GlobalContextBlock, GlobalContextStage

CONTENDERS = GLOBAL, LOCAL, SHIFTED = "global-queries", "windows-alone", "shifted-windows"


def build(name: str, config: GCViTGlobalConfig, image: torch.Size, classes: int) -> nn.Module:
    """A contender for images of the shape (C, H, W)."""
    dim = config.dim
    sizes: Any = {"num_heads": dim // 16, "window_size": config.window}
    layers: list[nn.Module] = [GlobalQuery(dim, config.halvings)] if name == GLOBAL else []
    for i in range(config.blocks):
        if i % 2 and name == GLOBAL:
            mixer = GlobalContextAttention2d(dim, **sizes, halvings=None)
            layers.append(GlobalContextBlock(dim, mixer, out_dim=dim, mlp_ratio=2))
            continue
        kind = ShiftedWindowAttention2d if i % 2 and name == SHIFTED else WindowAttention2d
        layers.append(MixerBlock(dim, kind(dim, **sizes, bias=True), out_dim=dim, mlp_ratio=2))
    stage = GlobalContextStage(*layers)
    return one_stage(stage, channels=image[0], classes=classes, dim=dim, patch_size=config.patch_size)


def train_all(config: GCViTGlobalConfig, seed: int, rate: float) -> list[Figure]:
    """Train every contender alike, on the same images in the same order, and measure each."""
    networks = {name: partial(build, name, config) for name in CONTENDERS}
    return classifying.compare(config, networks, seed, rate)
