"""A fixed filter per channel over the window that attention would weigh anew at each position."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from qna._core import checks
from qna._core.about import About
from qna._core.checks import per_axis
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.image_view import as_image
from qna.parts.initializers import init_linear_, lecun_normal_
from qna.parts.linear import apply_linear
from qna.parts.precision import as_they_are
from qna.parts.reach import Reach


class DepthwiseConvolution2d(nn.Module):
    """One filter per channel, zeros outside the map: the mixer of ConvNeXt's block (Liu et al., CVPR 2022).

    With `projections` the filter stands between the two linear maps that an attention layer has for its
    values and its output, so that nothing but the weights of the window differs from attention. An even
    window hangs over the map's end by one more than over its start. With n' positions that come out, C
    channels and K taps it costs n' K C multiply-adds, and (n + n') C^2 with projections.

    Args:
        dim: channels of input and output.
        kernel_size: height and width of the window; an integer for both.
        stride: positions of the input per position of the output, per axis.
        projections: whether a linear map of the channels, without bias, comes before and after.
        bias: whether the filters have a bias.

    Raises:
        InvalidInput: a size is not positive.
    """

    def __init__(
        self,
        dim: int,
        *,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        projections: bool = False,
        bias: bool = False,
    ):
        super().__init__()
        checks.positive(type(self).__name__, dim=dim)
        self.dim = self.out_dim = dim
        self.kernel_size = rows, columns = per_axis("kernel_size", kernel_size, 2, minimum=1)
        self.stride = down, across = per_axis("stride", stride, 2, minimum=1)
        self.projections = projections
        self.value = nn.Linear(dim, dim, bias=False) if projections else nn.Identity()
        self.filter = nn.Conv2d(
            dim,
            dim,
            (rows, columns),
            stride=(down, across),
            padding=self._before(),
            groups=dim,
            bias=bias,
        )
        self.out = nn.Linear(dim, dim, bias=False) if projections else nn.Identity()
        lecun_normal_(self.filter.weight, math.prod(self.kernel_size))
        if self.filter.bias is not None:
            nn.init.zeros_(self.filter.bias)
        for layer in (self.value, self.out):
            if isinstance(layer, nn.Linear):
                init_linear_(layer)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, ceil(H / stride), ceil(W / stride), dim)."""
        checks.channels_last_map(type(self).__name__, x, self.dim, 2)
        with as_they_are(x.device):
            # nothing is named that would then live longer than it is needed
            filtered = self.filter(self._filled(as_image(apply_linear(self.value, x))))
            return apply_linear(self.out, filtered.movedim(1, -1))

    def _filled(self, image: Tensor) -> Tensor:
        """With what even windows need more at the map's end than the convolution pads."""
        down, across = (k // 2 - (k - 1) // 2 for k in self.kernel_size)
        return F.pad(image, (0, across, 0, down)) if down or across else image

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size` = (B, H, W, dim)."""
        before, after = math.prod(size[:-1]), math.prod(self._out_size(size)[:-1])
        filtered = after * math.prod(self.kernel_size) * self.dim
        return filtered + (before + after) * self.dim**2 * self.projections

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: what is filtered where that is not the input, and what comes out.

        With projections those two maps, or the filtered one and what comes out.
        """
        before, after = math.prod(size), math.prod(self._out_size(size))
        padded = (before if self.projections else 0) + (
            math.prod(size[:1]) * (size[1] + 1) * (size[2] + 1) * self.dim
            if any(k % 2 == 0 for k in self.kernel_size)
            else 0
        )
        return max(padded + after, 2 * after * self.projections)

    def reach(self, size: Sequence[int]) -> tuple[Reach, ...]:
        """The windows."""
        return tuple(
            Reach.of_window(k, stride=s, before=before)
            for k, s, before in zip(self.kernel_size, self.stride, self._before(), strict=True)
        )

    def _before(self) -> tuple[int, int]:
        """Positions that the first window hangs over the map's start."""
        down, across = ((k - 1) // 2 for k in self.kernel_size)
        return down, across

    def _out_size(self, size: Sequence[int]) -> tuple[int, ...]:
        batch, *space, _ = size
        return batch, *(-(-n // s) for n, s in zip(space, self.stride, strict=True)), self.dim


ROW = MixerRow(
    DepthwiseConvolution2d,
    About(
        title="A ConvNet for the 2020s",
        authors="Liu, Mao, Wu et al.",
        venue="CVPR 2022",
        arxiv="2201.03545",
        read="timm 1.0.31's ConvNeXt block (Apache-2.0), whose first layer it is",
        differs="any window and stride; no bias unless asked for; the projections of an attention layer "
        "where they are asked for",
        status="exact",
    ),
    Example((5, 7), {"kernel_size": 3, "projections": True, "bias": True}),
    Traits(2, strided=True),
    {
        "compiles_with_inductor_and_dynamic_sizes": "inductor (torch 2.13) cannot order the symbolic strides "
        "of the convolution's maps"
    },
)
