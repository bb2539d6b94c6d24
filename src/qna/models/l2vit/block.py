"""The block of L2ViT: convolutions that tell positions around a mixer, and local concentration after one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from qna.mixers import LocalConcentration2d
from qna.models._parts.block import MixerBlock
from qna.models._parts.patches import NORM_EPS
from qna.models._parts.position import PositionConvolution
from qna.parts.drop_path import DropPath
from qna.parts.rows import PositionRows

# taps per axis of every convolution that tells positions
CPE_SIZE = 3


class Concentrated(nn.Module):
    """``x + concentration(norm(x))``, the branch of local concentration, on maps (B, H, W, C)."""

    def __init__(self, dim: int, *, kernel_size: int, drop_path: float):
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.concentration = LocalConcentration2d(dim, kernel_size=kernel_size)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        return x + self.drop_path(self.concentration(self.norm(x)))


class L2ViTBlock(MixerBlock):
    """``x = cpe(x)``, ``x = x + mixer(norm(x))``, ``x = near(x)``, ``x = x + mlp(norm(x))``; exact GELU.

    After windows `near` is a second convolution that tells positions, after linear attention local
    concentration.

    Args:
        dim: channels.
        mixer: a module (B, H, W, dim) -> the same.
        near: a module (B, H, W, dim) -> the same.
        drop_path: probability that a branch is left out for an image, in training.
        mlp_ratio: hidden channels of the MLP per channel.
    """

    def __init__(self, dim: int, mixer: nn.Module, near: nn.Module, *, drop_path: float, mlp_ratio: int):
        super().__init__(
            dim,
            mixer,
            out_dim=dim,
            drop_path=drop_path,
            mlp_ratio=mlp_ratio,
            norm_eps=NORM_EPS,
            gelu="none",
        )
        self.position = PositionConvolution(dim, kernel_size=CPE_SIZE)
        self.near = near

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        x = self.position(x)
        x = self.near(self.shortcut(x) + self.drop_path1(self.scale1(self.mixer(self.norm1(x)))))
        return x + self.drop_path2(self.scale2(self.mlp(self.norm2(x))))

    def held(self, size: Sequence[int]) -> int:
        """Elements beside an input of `size` = (B, H, W, C) at the worst moment of inference.

        As in any block; beside its map, as the first convolution makes another.
        """
        return super().held(size) + math.prod(size)

    def position_step(self, x: Tensor) -> tuple[PositionRows, PositionRows | None]:
        """As `MixerBlock` has it; what convolutions of a few positions mix counts as a position's own."""
        return super().position_step(self.position(x))


def near_of(dim: int, *, linear: bool, concentration_size: int, drop_path: float) -> Any:
    """What stands between mixer and MLP."""
    if not linear:
        return PositionConvolution(dim, kernel_size=CPE_SIZE)
    if not concentration_size:
        return nn.Identity()
    return Concentrated(dim, kernel_size=concentration_size, drop_path=drop_path)
