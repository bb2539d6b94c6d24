"""How a block of attention knows positions: by a convolution."""

from __future__ import annotations

from torch import Tensor, nn

from qna.parts.image_view import as_image


class PositionConvolution(nn.Module):
    """A depthwise convolution, added to what it convolves: a conditional position embedding.

    Args:
        dim: channels.
        kernel_size: taps per axis, odd.
    """

    def __init__(self, dim: int, *, kernel_size: int):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        return x + self.conv(as_image(x)).movedim(1, -1)
