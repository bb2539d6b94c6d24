"""What brings a map to half its size: a convolution of patches that overlap."""

from __future__ import annotations

import math

from torch import Tensor, nn

from qna.models._parts.shortcut import even_rows
from qna.parts.image_view import as_image
from qna.parts.rows import PositionRows


class OverlappingHalving(nn.Module):
    """A convolution of 3 x 3 at stride 2, and a norm."""

    def __init__(self, dim: int, out_dim: int):
        super().__init__()
        self.conv = nn.Conv2d(dim, out_dim, 3, stride=2, padding=1)
        # of 1e-5, where those of blocks have 1e-6
        self.norm = nn.LayerNorm(out_dim)
        init_convolution_(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, ceil(H / 2), ceil(W / 2), out_dim)."""
        return self.norm(self.conv(as_image(x)).movedim(1, -1).contiguous())

    def position_step(self, x: Tensor) -> tuple[PositionRows, PositionRows]:
        """Which positions each is made of, all alike."""
        rows = even_rows(x, 3, 2, 1)
        return rows, rows


def init_convolution_(conv: nn.Conv2d) -> None:
    """Normal weights of variance ``2 / fan_out``, and a bias of zero."""
    fan_out = math.prod(conv.kernel_size) * conv.out_channels // conv.groups
    nn.init.normal_(conv.weight, std=math.sqrt(2 / fan_out))
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
