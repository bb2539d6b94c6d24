"""What brings an image to a map, and a map to half its size, in TransNeXt: convolutions that overlap."""

from __future__ import annotations

import math

from torch import Tensor, nn

from qna.models._parts.scripting import NotScripted
from qna.models._parts.shortcut import even_rows
from qna.models._parts.stem import check_images
from qna.parts.image_view import as_image
from qna.parts.rows import PositionRows


class OverlappingPatchStem(NotScripted, nn.Module):
    """A convolution of ``2 reduction - 1`` pixels per axis at stride `reduction`, and a norm."""

    def __init__(self, in_chans: int, dim: int, reduction: int):
        super().__init__()
        self.reduction = reduction
        kernel = 2 * reduction - 1
        self.conv = nn.Conv2d(in_chans, dim, kernel, stride=reduction, padding=kernel // 2)
        # of 1e-5, where those of the blocks and stages have 1e-6
        self.norm = nn.LayerNorm(dim)
        init_convolution_(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, ceil(H / reduction), ceil(W / reduction), dim)."""
        check_images(x, self.conv)
        return self.norm(self.conv(x).permute(0, 2, 3, 1).contiguous())


class OverlappingHalving(nn.Module):
    """A convolution of 3 x 3 at stride 2, and a norm."""

    def __init__(self, dim: int, out_dim: int):
        super().__init__()
        self.conv = nn.Conv2d(dim, out_dim, 3, stride=2, padding=1)
        # of 1e-5, as in the stem
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
