"""SpectFormers that are alike but for how many blocks are spectral, and their training."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from qna.labs import classifying
from qna.labs.row import Figure
from qna.labs.spectformer_share.config import SpectFormerShareConfig
from qna.models.spectformer import SpectFormer, SpectFormerVariant

CONTENDERS = MIXED, ATTENTION, SPECTRAL = "mixed", "all-attention", "all-spectral"


def build(name: str, config: SpectFormerShareConfig, image: torch.Size, classes: int) -> nn.Module:
    """A contender for images of the shape (C, H, W)."""
    spectral = {MIXED: config.spectral, ATTENTION: 0, SPECTRAL: config.depth}[name]
    variant = SpectFormerVariant(
        config.dim,
        config.depth,
        config.dim // 16,
        spectral=spectral,
        patch_size=config.patch_size,
        image_size=image[1],
    )
    return SpectFormer(variant, in_chans=image[0], num_classes=classes)


def train_all(config: SpectFormerShareConfig, seed: int, rate: float) -> list[Figure]:
    """Train every contender alike, on the same images in the same order, and measure each."""
    networks = {name: partial(build, name, config) for name in CONTENDERS}
    return classifying.compare(config, networks, seed, rate)
