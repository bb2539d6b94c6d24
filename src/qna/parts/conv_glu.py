"""A gated MLP whose gate sees the positions around it."""

from __future__ import annotations

from torch import Tensor, nn

from qna.parts.activation import apply_gelu
from qna.parts.image_view import as_image
from qna.parts.initializers import init_linear_
from qna.parts.linear import apply_linear


class ConvolutionalGLU(nn.Module):
    """Convolutional GLU (Shi, "TransNeXt", CVPR 2024): ``fc2(GELU(DWConv(a)) * v)``.

    Of ``(a, v) = fc1(x)`` the first half alone is convolved, 3 x 3 and each channel by itself. Without the
    convolution it is a GEGLU; a zero lies around the map.

    Args:
        dim: channels of input and output.
        hidden: channels of each half.
    """

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, 2 * hidden)
        self.conv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)
        init_linear_(self.fc1)
        init_linear_(self.fc2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        gate, value = apply_linear(self.fc1, x).chunk(2, -1)
        gate = apply_gelu(self.act, self.conv(as_image(gate)).movedim(1, -1))
        return apply_linear(self.fc2, gate * value)
