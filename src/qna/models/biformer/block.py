"""The block of BiFormer, and the attention of its last stage."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from qna.mixers import FullAttention2d
from qna.models._parts.block import MixerBlock
from qna.models._parts.position import PositionConvolution
from qna.parts.image_view import as_image
from qna.parts.linear import apply_linear
from qna.parts.rows import PositionRows

# of the attention to the whole map, whatever its channels
FULL_HEADS = 8
LEPE_SIZE = 5


class EnhancedFullAttention2d(FullAttention2d):
    """Self-attention of all positions with LePE, a depthwise convolution of 5x5: BiFormer's last stage.

    ``y = out(softmax(q k^T / sqrt(d)) v + LePE(x))``, d the channels of a head, unlike routing attention.
    Only the output and the convolution have a bias.

    Args:
        dim: channels; 8 divides them.
        enhances_values: LePE(v) in the place of LePE(x), as in the authors' second code.
    """

    def __init__(self, dim: int, *, enhances_values: bool = False):
        super().__init__(dim, num_heads=FULL_HEADS)
        self.enhances_values = enhances_values
        self.out = nn.Linear(dim, dim)
        self.lepe = nn.Conv2d(dim, dim, LEPE_SIZE, padding=LEPE_SIZE // 2, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, H, W, dim)."""
        query, key, value = self._packed(x)
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        seen = value.transpose(1, 2).reshape(x.shape) if self.enhances_values else x
        enhanced = self.lepe(as_image(seen)).movedim(1, -1)
        return apply_linear(self.out, self._gated(x, attended.reshape(x.shape)) + enhanced)

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size` = (B, H, W, dim)."""
        return super().macs(size) + math.prod(size) * LEPE_SIZE**2

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: queries, keys, values, what they become, and LePE."""
        return super().held(size) + math.prod(size)


class BiFormerBlock(MixerBlock):
    """A `PositionConvolution`, then a mixer and an MLP as `MixerBlock` has them, exact GELU.

    Args:
        dim: channels.
        mixer: a module (B, H, W, dim) -> the same.
        position: whether there is a `PositionConvolution`.
        drop_path: probability that a branch is left out for an image, in training.
        mlp_ratio: hidden channels of the MLP per channel.
    """

    def __init__(self, dim: int, mixer: nn.Module, *, position: bool, drop_path: float, mlp_ratio: int):
        super().__init__(
            dim, mixer, out_dim=dim, drop_path=drop_path, mlp_ratio=mlp_ratio, norm_eps=1e-6, gelu="none"
        )
        self.position = PositionConvolution(dim, kernel_size=3) if position else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        return super().forward(self.position(x))

    def position_step(self, x: Tensor) -> tuple[PositionRows, PositionRows | None]:
        """As `MixerBlock` has it; what the convolution of 3x3 mixes counts as a position's own."""
        return super().position_step(self.position(x))
