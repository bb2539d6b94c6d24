"""What brings an image to a map, and a map to half its size, by convolutions of overlapping windows."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from qna.models._parts.patches import NORM_EPS
from qna.models._parts.scripting import NotScripted
from qna.models._parts.shortcut import even_rows
from qna.models._parts.stem import check_images
from qna.parts.rows import PositionRows


class OverlappingStem(NotScripted, nn.Module):
    """Convolutions of 3x3 at stride 2, one after the other with nothing between them, and a norm.

    Each doubles the channels, up to `dim`; as many as make a position of `reduction` pixels per axis.
    """

    def __init__(self, in_chans: int, dim: int, reduction: int):
        super().__init__()
        self.reduction = reduction
        steps = reduction.bit_length() - 1
        widths = [in_chans, *(dim // 2 ** (steps - 1 - i) for i in range(steps))]
        self.convs = nn.Sequential(*(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths)))
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, ceil(H / reduction), ceil(W / reduction), dim)."""
        check_images(x, self.convs[0])  # type: ignore[arg-type]
        return self.norm(self.convs(x).permute(0, 2, 3, 1).contiguous())


class ConvolutionHalving(nn.Module):
    """A convolution of 3x3 at stride 2 that doubles the channels, and a norm."""

    def __init__(self, dim: int):
        super().__init__()
        self.conv = nn.Conv2d(dim, 2 * dim, 3, stride=2, padding=1, bias=False)
        self.norm = nn.LayerNorm(2 * dim, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), 2 C)."""
        return self.norm(self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous())

    def position_step(self, x: Tensor) -> tuple[PositionRows, PositionRows]:
        """Which positions each is made of, all alike."""
        rows = even_rows(x, 3, 2, 1)
        return rows, rows
