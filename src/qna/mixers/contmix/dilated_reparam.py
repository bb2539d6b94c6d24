"""A large depthwise kernel, trained beside small and dilated ones, into which all of them merge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from qna._core import checks
from qna._core.about import About
from qna._core.errors import InvalidInput
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.image_view import on_image
from qna.parts.reach import Reach

# size of the large kernel -> (taps per axis, dilation) of each small one beside it
BRANCHES: dict[int, tuple[tuple[int, int], ...]] = {
    # ours: the authors begin at 5
    3: (),
    5: ((3, 1), (3, 2)),
    7: ((5, 1), (3, 1), (3, 2), (3, 3)),
    9: ((5, 1), (7, 1), (5, 2), (3, 3), (3, 4)),
    11: ((5, 1), (7, 1), (5, 2), (3, 3), (3, 4), (3, 5)),
    13: ((5, 1), (7, 1), (7, 2), (3, 3), (3, 4), (3, 5)),
    15: ((5, 1), (7, 1), (7, 2), (3, 3), (3, 5), (3, 7)),
    17: ((5, 1), (7, 1), (9, 2), (3, 4), (3, 5), (3, 7)),
    19: ((5, 1), (7, 1), (9, 1), (9, 2), (3, 4), (3, 5), (3, 7)),
}


class DilatedReparam2d(nn.Module):
    """The dilated re-parameterised block of UniRepLKNet (Ding et al., CVPR 2024), on maps of any size.

    In training a depthwise convolution of K x K taps and several of fewer taps at dilations, each followed by
    a batch norm, are summed::

        y = BN(DW_K(x)) + sum_i BN_i(DW_(k_i, r_i)(x))

    Zeros lie outside the map. In evaluation each norm is an affine map of its channel, and a kernel with
    dilation is a larger one with zeros between its taps, so that the sum is one convolution of K x K taps
    with a bias: the deployed form, which `fuse` takes. With n positions and C channels that costs ``n C K^2``
    multiply-adds, and before ``n C (K^2 + sum_i k_i^2)``.

    Args:
        dim: channels of input and output.
        kernel_size: K, one of `BRANCHES`.
        deploy: begin in the deployed form.

    Raises:
        InvalidInput: `dim` is not positive, or there are no small kernels for this K.
    """

    def __init__(self, dim: int, *, kernel_size: int = 7, deploy: bool = False):
        super().__init__()
        checks.positive(type(self).__name__, dim=dim)
        if kernel_size not in BRANCHES:
            raise InvalidInput(
                f"{type(self).__name__}: kernel_size must be one of {', '.join(map(str, BRANCHES))}, "
                f"for which small kernels are chosen, got {kernel_size!r}"
            )
        self.dim = self.out_dim = dim
        self.kernel_size = kernel_size
        self.large = _depthwise(dim, kernel_size, bias=deploy)
        if not deploy:
            self.large_norm = nn.BatchNorm2d(dim)
            for name, (taps, dilation) in zip(self.names, BRANCHES[kernel_size], strict=True):
                # no list of modules, which would have a name and never be called
                self.add_module(name, _depthwise(dim, taps, dilation=dilation))
                self.add_module(f"{name}_norm", nn.BatchNorm2d(dim))

    @property
    def names(self) -> list[str]:
        """Of the small kernels: "small5x1" has 5 taps per axis at dilation 1."""
        return [f"small{taps}x{dilation}" for taps, dilation in BRANCHES[self.kernel_size]]

    @property
    def deployed(self) -> bool:
        """Whether it is one convolution."""
        return self.large.bias is not None

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, H, W, dim)."""
        checks.channels_last_map(type(self).__name__, x, self.dim, 2)
        return on_image(self._summed, x)

    def _summed(self, image: Tensor) -> Tensor:
        if self.deployed:
            return self.large(image)
        y = self.large_norm(self.large(image))
        for name in self.names:
            y = y + self.get_submodule(f"{name}_norm")(self.get_submodule(name)(image))
        return y

    @torch.no_grad()
    def fuse(self) -> DilatedReparam2d:
        """Take the deployed form, in place; what comes out in evaluation stays the same to rounding."""
        if self.deployed:
            return self
        merged, bias = _folded(self.large, self.large_norm)
        for name, (taps, dilation) in zip(self.names, BRANCHES[self.kernel_size], strict=True):
            kernel, shift = _folded(*(cast(Any, self.get_submodule(n)) for n in (name, f"{name}_norm")))
            first = (self.kernel_size - (dilation * (taps - 1) + 1)) // 2
            end = self.kernel_size - first
            merged[..., first:end:dilation, first:end:dilation] += kernel
            bias = bias + shift
        weight = self.large.weight
        large = _depthwise(self.dim, self.kernel_size, bias=True).to(weight)
        large.weight.copy_(merged)
        cast(Tensor, large.bias).copy_(bias)
        self.large = large.train(self.training).requires_grad_(weight.requires_grad)
        del self.large_norm
        for name in self.names:
            delattr(self, name)
            delattr(self, f"{name}_norm")
        return self

    def reach(self, size: Sequence[int]) -> tuple[Reach, ...]:
        """The large windows."""
        return (Reach.of_window(self.kernel_size, before=self.kernel_size // 2),) * 2

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size` = (B, H, W, dim), in the form that it has."""
        small = 0 if self.deployed else sum(taps**2 for taps, _ in BRANCHES[self.kernel_size])
        return math.prod(size) * (self.kernel_size**2 + small)

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: what comes out; as trained also a small kernel's and its norm's."""
        return math.prod(size) * (1 if self.deployed else 3)


def _depthwise(dim: int, taps: int, *, dilation: int = 1, bias: bool = False) -> nn.Conv2d:
    padding = dilation * (taps - 1) // 2
    return nn.Conv2d(dim, dim, taps, padding=padding, dilation=dilation, groups=dim, bias=bias)


def _folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Kernels and bias of a convolution with what its norm does in evaluation, in float64."""
    scale = norm.weight.double() / (cast(Tensor, norm.running_var).double() + norm.eps).sqrt()
    shift = norm.bias.double() - cast(Tensor, norm.running_mean).double() * scale
    return convolution.weight.double() * scale[:, None, None, None], shift


ROW = MixerRow(
    DilatedReparam2d,
    About(
        title="UniRepLKNet: A Universal Perception Large-Kernel ConvNet",
        authors="Ding, Zhang, Ge et al.",
        venue="CVPR 2024",
        arxiv="2311.15599",
        read="the block in the code of OverLoCK's authors, LMMMEng/OverLoCK at 2c8ab3b (Apache-2.0)",
        differs="the forms are merged in double precision; a kernel of 3 x 3, which theirs refuses, has no "
        "small ones beside it",
        status="exact",
    ),
    Example((5, 7), {"kernel_size": 7}),
    Traits(2),
    {
        "compiles_with_inductor_and_dynamic_sizes": "inductor (torch 2.13) cannot order the symbolic strides "
        "of the convolutions' maps"
    },
)
