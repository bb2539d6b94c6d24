"""Local concentration: two depthwise convolutions that gather what linear attention spread over the map."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from qna._core import checks
from qna._core.errors import InvalidInput
from qna.mixers.linear.attention import ROW as ATTENTION
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.activation import apply_gelu
from qna.parts.image_view import on_image
from qna.parts.reach import Reach


class LocalConcentration2d(nn.Module):
    """L2ViT's local concentration module (Zheng, arXiv 2501.16182): ``DW(BN(GELU(DW(x))))``.

    Both depthwise convolutions have a bias and see zeros outside the map. With n positions, C channels and
    windows of k x k it costs ``2 n C k^2`` multiply-adds. In training the batch norm couples the images.

    Args:
        dim: channels of input and output.
        kernel_size: k, odd.

    Raises:
        InvalidInput: `dim` is not positive, or `kernel_size` not odd and positive.
    """

    def __init__(self, dim: int, *, kernel_size: int = 7):
        super().__init__()
        checks.positive(type(self).__name__, dim=dim, kernel_size=kernel_size)
        if kernel_size % 2 == 0:
            raise InvalidInput(f"{type(self).__name__}: kernel_size must be odd, got {kernel_size}")
        self.dim = self.out_dim = dim
        self.kernel_size = kernel_size
        self.conv1 = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)
        # exact, not the tanh form
        self.act = nn.GELU()
        # after the activation, not before it
        self.norm = nn.BatchNorm2d(dim)
        self.conv2 = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, H, W, dim)."""
        checks.channels_last_map(type(self).__name__, x, self.dim, 2)
        gathered = apply_gelu(self.act, on_image(self.conv1, x))
        return on_image(self.conv2, on_image(self.norm, gathered))

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size` = (B, H, W, dim)."""
        return 2 * math.prod(size) * self.kernel_size**2

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: a map and what it becomes."""
        return 2 * math.prod(size)

    def reach(self, size: Sequence[int]) -> tuple[Reach, ...]:
        """Two windows, one after the other."""
        k = self.kernel_size
        return (Reach.of_window(2 * k - 1, before=k - 1),) * 2

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        return f"{self.dim}"


ROW = MixerRow(
    LocalConcentration2d,
    ATTENTION.about,
    Example((5, 7), {"kernel_size": 3}),
    Traits(2),
)
