"""Halo attention in blocks and halos of other sizes, and networks that are alike in all else."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from qna.labs import classifying
from qna.labs.halo_blocks.config import HaloBlocksConfig
from qna.labs.one_stage import one_stage
from qna.labs.row import Figure
from qna.mixers import HaloAttention2d
from qna.models.halonet.network import HaloBlock

HEAD_DIM = 8
CONTENDERS = HALO, CENTRED, WIDE, NARROW = "halo", "centred", "no-halo", "no-halo-smaller"


def sizes(name: str, block: int) -> tuple[int, int]:
    """Block and halo of a contender, where that with a halo has blocks of `block`: the halo is half of it.

    Its windows are of twice the block. Those without a halo have as many keys, or as many queries; a window
    that is centred has an odd size, here one more.
    """
    return {
        HALO: (block, block // 2),
        CENTRED: (1, block),
        WIDE: (2 * block, 0),
        NARROW: (block, 0),
    }[name]


def attention(name: str, dim: int, block: int) -> HaloAttention2d:
    """The layer of a contender."""
    block_size, halo_size = sizes(name, block)
    return HaloAttention2d(dim, num_heads=dim // HEAD_DIM, block_size=block_size, halo_size=halo_size)


def build(name: str, config: HaloBlocksConfig, image: torch.Size, classes: int) -> nn.Module:
    """The network of a contender for images of the shape (C, H, W)."""
    dim = 2 * config.width
    blocks = [
        HaloBlock(dim, attention(name, config.width, config.block_size), out_dim=dim, drop_path=0.0)
        for _ in range(config.blocks)
    ]
    return one_stage(blocks, channels=image[0], classes=classes, dim=dim, patch_size=config.patch_size)


def train_all(config: HaloBlocksConfig, seed: int, rate: float) -> list[Figure]:
    """Train every network alike, on the same images in the same order, and measure each."""
    networks = {name: partial(build, name, config) for name in CONTENDERS}
    return classifying.compare(config, networks, seed, rate)
