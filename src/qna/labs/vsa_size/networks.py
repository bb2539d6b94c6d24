"""Swins whose windows vary, stay, or are shifted; nothing else differs, and they begin alike."""

from __future__ import annotations

from typing import Any

from torch import nn

from qna._core.seeds import derive_seed, seeded
from qna.labs.vsa_size.config import VSASizeConfig
from qna.mixers import ShiftedWindowAttention2d, WindowAttention2d
from qna.models.vsa import SwinVSA, SwinVSAVariant
from qna.models.vsa.blocks import VariedSizeBlock

VARIED, FIXED, SHIFTED = "varied-size", "fixed-windows", "shifted-windows"
NETWORKS = (VARIED, FIXED, SHIFTED)
HEAD_DIM = 8


def build(name: str, config: VSASizeConfig, *, size: int, channels: int, seed: int) -> SwinVSA:
    """A contender for images of so many pixels per axis.

    Windows begin as plain ones, so that with fixed windows the network begins as the same function.
    """
    variant = SwinVSAVariant(
        dim=config.dim,
        depths=(config.blocks,) * 2,
        head_dim=HEAD_DIM,
        mlp_ratio=2,
        window_size=config.window,
        zero_init=True,
        patch_size=config.patch_size,
        image_size=size,
    )
    with seeded(derive_seed(seed, "weights")):
        network = SwinVSA(variant, in_chans=channels, num_classes=10)
    for stage in network.stages:
        blocks = [block for block in stage if isinstance(block, VariedSizeBlock)]  # type: ignore[union-attr]
        for number, block in enumerate(blocks):
            if name != VARIED:
                block.mixer = _fixed(block.mixer, shifted=name == SHIFTED and number % 2 == 1)
    return network


def _fixed(mixer: Any, *, shifted: bool) -> nn.Module:
    """Attention in windows that stay, with the same weights."""
    kind = ShiftedWindowAttention2d if shifted else WindowAttention2d
    fixed = kind(mixer.dim, num_heads=mixer.num_heads, window_size=mixer.window_size, bias=True)
    own = fixed.state_dict()
    fixed.load_state_dict({key: tensor for key, tensor in mixer.state_dict().items() if key in own})
    return fixed
