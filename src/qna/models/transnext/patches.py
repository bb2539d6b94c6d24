"""What brings an image to a map in TransNeXt: a convolution of patches that overlap."""

from __future__ import annotations

from torch import Tensor, nn

from qna.models._parts.overlapping import init_convolution_
from qna.models._parts.scripting import NotScripted
from qna.models._parts.stem import check_images


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
