"""A linear map of the channels whose results a batch norm follows."""

from __future__ import annotations

from torch import Tensor, nn

from qna.parts.image_view import on_image
from qna.parts.linear import apply_linear


class NormedLinear(nn.Module):
    """A linear map of every position's channels, without bias, and batch norm.

    Args:
        dim: channels of the input.
        out_dim: channels of the output.
    """

    def __init__(self, dim: int, out_dim: int):
        super().__init__()
        self.linear = nn.Linear(dim, out_dim, bias=False)
        self.norm = nn.BatchNorm2d(out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, H, W, out_dim)."""
        return on_image(self.norm, apply_linear(self.linear, x))
