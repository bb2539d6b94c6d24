"""Spectral gating: every channel of a map multiplied, frequency by frequency, with a learned filter."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from qna._core import checks
from qna._core.about import About
from qna._core.backends import short
from qna._core.errors import InvalidInput
from qna.mixers.row import Example, MixerRow, Traits
from qna.mixers.spectral.products import gate_by_products
from qna.mixers.spectral.resize import resize_filter
from qna.parts.open_size import is_open
from qna.parts.precision import without_autocast


class SpectralGating2d(nn.Module):
    """Spectral gating (Patro, Namboodiri, Agneeswaran, WACV 2025) of maps of any height and width.

    With the orthonormal transform F of a real map over its height and width::

        y = F^-1(K * F(x))

    K has a complex number for every channel and frequency of the half plane that a real map needs. It is a
    circular depthwise convolution whose kernel, ``irfft2(K)``, is as large as the map. Of K that `irfft2`
    does not read (in columns that are their own mirror, what is not Hermitian) nothing reaches the map.

    For maps of another size than `map_size`, K is interpolated in the frequency plane, see `resize_filter`.
    The transforms run in float32 at least. The products cost ``2 H (W // 2 + 1) C`` multiply-adds of real
    numbers for complex ones counted as two; the transforms, about ``5 / 2 H W C log2(H W)``, are not counted.

    Args:
        dim: channels of input and output.
        map_size: height and width that the filters are learned at, or one number for both.

    Raises:
        InvalidInput: `dim` or a size is not positive; in a call, a map of no floating-point numbers.
    """

    def __init__(self, dim: int, *, map_size: int | Sequence[int] = 14):
        super().__init__()
        checks.positive(type(self).__name__, dim=dim)
        self.dim = self.out_dim = dim
        height, width = checks.per_axis("map_size", map_size, 2, minimum=1)
        self.map_size = (height, width)
        # real and imaginary part last, as state dicts of half precision and optimisers want them
        self.weight = nn.Parameter(torch.empty(height, width // 2 + 1, dim, 2))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, H, W, dim)."""
        checks.channels_last_map(type(self).__name__, x, self.dim, 2)
        if not x.is_floating_point():
            # the result would be rounded to it without a word
            raise InvalidInput(f"{type(self).__name__}: maps must be of floating point, got {short(x.dtype)}")
        height, width = x.shape[1:3]
        if not is_open(x.shape[0]) and not x.shape[0]:
            # some libraries of transforms refuse to make none
            return x * self.filters(height, width).real.sum()
        wide = torch.promote_types(x.dtype, torch.float32)
        # autocast would interpolate filters in half precision
        with without_autocast(x.device):
            if torch.compiler.is_exporting():
                return gate_by_products(x.to(wide), self.filters).to(x.dtype)
            spectrum = torch.fft.rfft2(x.to(wide), dim=(1, 2), norm="ortho")
            gated = spectrum * self.filters(height, width).to(spectrum.dtype)
            # the width is said, as odd ones have the half plane of the even ones before them
            return torch.fft.irfft2(gated, s=(height, width), dim=(1, 2), norm="ortho").to(x.dtype)

    def filters(self, height: int, width: int) -> Tensor:
        """K for maps of a size: complex, (height, width // 2 + 1, dim)."""
        weight = self.weight.to(torch.promote_types(self.weight.dtype, torch.float32))
        # weights in channels-last order lie otherwise
        learned = torch.view_as_complex(weight.contiguous())
        if not (is_open(height) or is_open(width)) and (height, width) == self.map_size:
            return learned
        return resize_filter(learned, self.map_size[1], height, width)

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size` = (B, H, W, dim): the products alone, without the transforms."""
        return 2 * size[0] * size[1] * (size[2] // 2 + 1) * self.dim

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: the spectrum before and after the product, and what is made of it."""
        half = 2 * size[0] * size[1] * (size[2] // 2 + 1) * self.dim
        return max(2 * half, half + math.prod(size))

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        return f"{self.dim}, map_size={self.map_size}"


ROW = MixerRow(
    SpectralGating2d,
    About(
        title="SpectFormer: Frequency and Attention is what you need in a Vision Transformer",
        authors="Patro, Namboodiri, Agneeswaran",
        venue="WACV 2025",
        arxiv="2304.06446",
        read="the paper; the authors' code, badripatro/SpectFormers at b6cf487 (no licence), was only run",
        differs="filters follow maps of other sizes, interpolated in the frequency plane",
        status="exact",
    ),
    Example((5, 7), {"map_size": (4, 6)}),
    Traits(2),
    {
        "compiles_with_inductor_and_dynamic_sizes": "inductor (torch 2.13) makes no code for complex "
        "numbers, and warns that it leaves them as they are"
    },
)
