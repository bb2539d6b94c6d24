"""Which keys a query of neighbourhood attention sees along one axis; a window is the product of its axes.

Hassani et al., "Generalized Neighborhood Attention", arXiv 2504.16922, with the border policies of others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from qna._core.checks import per_axis
from qna._core.errors import InvalidInput, check_choice

BORDERS = ("clamp", "mask", "zero")


class WindowAxis(NamedTuple):
    """The windows of all queries along one axis.

    Positions that are equal modulo the dilation form a group, and all is as on a map of that group alone.
    There, with m the query, L the length, k the kernel and s the stride::

        not causal: start = m // s * s + s // 2 - k // 2, put into [0, L - k] where the border clamps
        causal:     start = min(m // s * s + s - 1, L - 1) - (k - 1), at least 0 where the border clamps
        keys        start ... start + k - 1, but causally none beyond m

    Made by `window_axes`, which checks.

    Attributes:
        size: positions of the axis.
        kernel: taps of a window.
        stride: queries of one group that share a window.
        dilation: positions between neighbouring taps.
        causal: whether a query sees nothing after itself.
        border: what a window does that hangs over the map. "clamp": it moves inwards. "mask": it stays, and
            what lies outside is not attended. "zero": it stays, and what lies outside are keys of zeros.
    """

    size: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    causal: bool = False
    border: str = "clamp"

    @property
    def whole(self) -> bool:
        """Whether every query sees all taps, and all of them in the map."""
        return self.border == "clamp" and not self.causal

    def starts(self, queries: Tensor) -> Tensor:
        """Position of the first tap of each query's window; where the border does not clamp maybe outside."""
        residue, place = queries % self.dilation, queries // self.dilation
        length = self.size // self.dilation + (residue < self.size % self.dilation).to(queries.dtype)
        group = place // self.stride * self.stride
        if self.causal:
            # the last group may be short; of others the end of the window is outside, as a padded map has it
            start = torch.minimum(group + self.stride, length) - self.kernel
        else:
            start = group + self.stride // 2 - self.kernel // 2
        if self.border == "clamp":
            start = torch.minimum(start, length - self.kernel).clamp(min=0)
        return residue + start * self.dilation

    def counts(self, queries: Tensor, starts: Tensor) -> Tensor:
        """Taps that each query may see, from the first: all, but causally none beyond the query."""
        if not self.causal:
            return torch.full_like(queries, self.kernel)
        return (queries - starts) // self.dilation + 1

    def in_map(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Position of the first key of the map that each query attends, and how many there are."""
        starts = self.starts(queries)
        counts = self.counts(queries, starts)
        last = starts + (counts - 1) * self.dilation
        # what hangs over the start, and over the end, in taps
        before = (-starts).clamp(min=0).add(self.dilation - 1) // self.dilation
        after = (last - (self.size - 1)).clamp(min=0).add(self.dilation - 1) // self.dilation
        return starts + before * self.dilation, counts - before - after

    def pairs(self) -> int:
        """Pairs of a query and a key of the map that it attends."""
        return int(self.in_map(torch.arange(self.size))[1].sum())


def window_axes(
    owner: str,
    space: Sequence[int],
    kernel_size: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    is_causal: bool | Sequence[bool] = False,
    border: str = "clamp",
) -> tuple[WindowAxis, ...]:
    """The windows of a map of `space`, checked, axis by axis.

    Raises:
        InvalidInput: arguments that are no numbers, or windows that the map or the stride does not allow.
    """
    n = len(space)
    check_choice("border", border, BORDERS)
    causal = tuple(is_causal) if isinstance(is_causal, Sequence) else (is_causal,) * n
    if len(causal) != n or not all(isinstance(c, bool) for c in causal):
        raise InvalidInput(
            f"{owner}: is_causal must be a bool, or one for each of {n} axes, got {is_causal!r}"
        )
    kernels = per_axis(f"{owner}: kernel_size", kernel_size, n, minimum=1)
    strides = per_axis(f"{owner}: stride", stride, n, minimum=1)
    dilations = per_axis(f"{owner}: dilation", dilation, n, minimum=1)
    numbers = zip(space, kernels, strides, dilations, causal, strict=True)
    axes = tuple(WindowAxis(*of_axis, border) for of_axis in numbers)
    for number, (size, k, s, d, *_) in enumerate(axes):
        if s > k:
            raise InvalidInput(
                f"{owner}: on axis {number} stride {s} is larger than kernel_size {k}, so that queries would "
                f"lie outside of their windows; use a stride of at most {k}"
            )
        if border == "clamp" and k * d > size:
            dilated = f" with dilation {d} spans {k * d} positions and" if d > 1 else ""
            smaller = f"kernel_size of at most {size // d}" if d <= size else f"dilation of at most {size}"
            raise InvalidInput(
                f"{owner}: on axis {number} kernel_size {k}{dilated} is larger than the map, which has "
                f"{size} positions; use a {smaller}"
            )
    return axes
