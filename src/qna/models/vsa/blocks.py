"""A block of varied-size windows: what tells positions, before the norm, reaches the attention alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from qna.models._parts.block import MixerBlock
from qna.models._parts.position import PositionConvolution
from qna.parts.rows import PositionRows

# taps per axis of every conditional position embedding
CPE_SIZE = 7


class VariedSizeBlock(MixerBlock):
    """``x = x + mixer(norm(cpe(x)))``, then ``x = x + mlp(norm(x))``, on maps (B, H, W, C).

    The embedding of positions is not added to the skip path. Arguments as `MixerBlock`.
    """

    def __init__(self, dim: int, mixer: nn.Module, **options: Any):
        super().__init__(dim, mixer, out_dim=dim, **options)
        self.cpe = PositionConvolution(dim, kernel_size=CPE_SIZE)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        return self.mixed(self.shortcut(x) + self.attended(x))

    def attended(self, x: Tensor) -> Tensor:
        """What the attention adds, (B, H, W, C)."""
        return self.drop_path1(self.scale1(self.mixer(self.norm1(self.cpe(x)))))

    def mixed(self, x: Tensor) -> Tensor:
        """A map (B, H, W, C) with what the MLP adds."""
        return x + self.drop_path2(self.scale2(self.mlp(self.norm2(x))))

    def held(self, size: Sequence[int]) -> int:
        """Elements beside an input of `size` = (B, H, W, C) at the worst moment of inference.

        As in any block; or before its mixer the map convolved, with the embedding, and normalised.
        """
        return max(super().held(size), 2 * math.prod(size))

    def position_step(self, x: Tensor) -> tuple[PositionRows, None]:
        """Where each position that comes out looks in `x`; the skip path keeps places."""
        return self.mixer.attention_rows(self.norm1(self.cpe(x))), None  # type: ignore[operator]
