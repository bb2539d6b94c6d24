"""Average pooling as a mixer: no parameter, every position of the window alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from qna._core import checks
from qna._core.about import About
from qna._core.checks import per_axis
from qna._core.errors import InvalidInput
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.image_view import as_image
from qna.parts.reach import Reach


class Pooling2d(nn.Module):
    """The mean of the window around each position, less the position itself (PoolFormer's mixer).

    Yu et al., CVPR 2022, equation 4. What is outside the map does not count in the mean. The position is
    taken away because a block adds it on its skip path.

    Args:
        dim: channels of input and output.
        kernel_size: height and width of the window, odd; an integer for both.

    Raises:
        InvalidInput: a size is not positive, or a window is even, which has no middle.
    """

    def __init__(self, dim: int, *, kernel_size: int | Sequence[int] = 3):
        super().__init__()
        checks.positive(type(self).__name__, dim=dim)
        self.dim = self.out_dim = dim
        self.kernel_size = per_axis("kernel_size", kernel_size, 2, minimum=1)
        if any(k % 2 == 0 for k in self.kernel_size):
            raise InvalidInput(f"{type(self).__name__}: kernel_size must be odd, got {self.kernel_size}")

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, H, W, dim)."""
        checks.channels_last_map(type(self).__name__, x, self.dim, 2)
        half = [k // 2 for k in self.kernel_size]
        mean = F.avg_pool2d(as_image(x), self.kernel_size, 1, half, count_include_pad=False)
        return mean.movedim(1, -1) - x

    def macs(self, size: Sequence[int]) -> int:
        """Additions of the means, counted as the multiply-adds of a filter that is all ones."""
        return math.prod(size) * math.prod(self.kernel_size)

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: the means and what comes out."""
        return 2 * math.prod(size)

    def reach(self, size: Sequence[int]) -> tuple[Reach, ...]:
        """The windows."""
        return tuple(Reach.of_window(k, before=k // 2) for k in self.kernel_size)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"{self.dim}, kernel_size={self.kernel_size}"


_NOTHING_TO_LEARN = "it has no parameters"
ROW = MixerRow(
    Pooling2d,
    About(
        title="MetaFormer Is Actually What You Need for Vision",
        authors="Yu, Luo, Zhou et al.",
        venue="CVPR 2022",
        arxiv="2111.11418",
        read="timm 1.0.31's PoolFormer (Apache-2.0)",
        differs="windows need not be square",
        status="exact",
    ),
    Example((5, 7), {"kernel_size": (3, 5)}),
    Traits(2),
    {"state_dict_round_trip": _NOTHING_TO_LEARN, "bfloat16_autocast": _NOTHING_TO_LEARN},
)
