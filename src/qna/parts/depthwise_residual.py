"""A light convolution beside a skip path, whose channels the mean of the map weighs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from qna.parts.image_view import on_image
from qna.parts.linear import apply_linear
from qna.parts.squeeze_excite import SqueezeExcite


class DepthwiseResidual(nn.Module):
    """``x + W SE(GELU(depthwise(x)))`` without biases: of GC ViT (Hatamizadeh et al., ICML 2023).

    The depthwise convolution is of 3 x 3, the squeeze and excitation has a quarter of the channels. n
    positions of C channels cost ``9 n C + n C^2 + C^2 / 2`` multiply-adds.

    Args:
        dim: channels.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)
        self.act = nn.GELU()
        self.excite = SqueezeExcite(dim, reduction=4, least=1, bias=False)
        self.linear = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        return x + apply_linear(self.linear, self.excite(self.act(on_image(self.conv, x))))

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size` = (B, H, W, C)."""
        batch, height, width, channels = size
        positions = batch * height * width
        return positions * (9 + channels) * channels + self.excite.macs(tuple(size))
