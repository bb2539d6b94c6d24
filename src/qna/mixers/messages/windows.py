"""The window around each position of a map as its neighbourhood."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from functools import reduce as fold
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna.mixers.messages.pair_sums import PairSums, is_taken
from qna.parts.contextual_messages import Reduce
from qna.parts.image_view import on_image
from qna.parts.open_size import part_of


class MapWindows(NamedTuple):
    """Neighbours by windows; a `qna.parts.contextual_messages.Neighbors` of maps (B, *space, C).

    What hangs over the border is not there: positions at the border have fewer neighbours. Whom a position
    sees also sees it, so that its degrees are one.

    Attributes:
        space: sizes of the map.
        kernel_size: of the window, odd, one per axis.
        self_loops: whether a position is its own neighbour.
    """

    space: Sequence[int]
    kernel_size: tuple[int, ...]
    self_loops: bool

    def in_degrees(self, like: Tensor) -> Tensor:
        """(1, *space, 1)."""
        counts = torch.ones((1,) * like.ndim, dtype=like.dtype, device=like.device)
        for axis, (size, k) in enumerate(zip(self.space, self.kernel_size, strict=True), 1):
            place = torch.arange(size, device=like.device)
            seen = place.clamp(max=k // 2) + (size - 1 - place).clamp(max=k // 2) + 1
            counts = counts * seen.to(like.dtype).view(-1, *(1,) * (like.ndim - axis - 1))
        return counts if self.self_loops else counts - 1

    def out_degrees(self, like: Tensor) -> Tensor:
        """(1, *space, 1)."""
        return self.in_degrees(like)

    def pairs(self) -> int:
        """How many neighbours all positions have together."""
        every = math.prod(
            sum(min(i, k // 2) + min(size - 1 - i, k // 2) + 1 for i in range(size))
            for size, k in zip(self.space, self.kernel_size, strict=True)
        )
        return every if self.self_loops else every - math.prod(self.space)

    def pull(self, values: Tensor, reduce: Reduce) -> Tensor:
        """(B, *space, C) -> the same: sums axis by axis, k_1 + k_2 additions where windows have k_1 k_2."""
        if reduce == "max":
            if self.self_loops:
                return self._along_axes(values, _maxima)
            return self._without_none(fold(torch.maximum, self._taps(values, -math.inf)))
        sums = self._along_axes(values, _sums)
        return sums if self.self_loops else sums - values

    def meet(
        self,
        query: Tensor,
        key: Tensor,
        message: Callable[[Tensor], Tensor],
        reduce: Reduce,
        weight: Tensor | None,
    ) -> Tensor:
        """(B, *space, C) twice -> (B, *space, C'); no window is stored, but for a gradient of maxima."""
        if reduce == "max":
            # a pair that is not there must lose, whatever its message would be
            places = self._taps(torch.zeros_like(key[:1, ..., :1]), -math.inf)
            terms = (
                message(query + shifted) + place
                for shifted, place in zip(self._taps(key, 0.0), places, strict=True)
            )
            return self._without_none(fold(torch.maximum, terms))
        if isinstance(message, nn.Module) and is_taken(query, key, message):
            plain = partial(self.sum_of_taps, message=message, weight=weight)
            summed = PairSums.apply(query, key, message, self._offsets(), weight, plain)
            assert isinstance(summed, Tensor)
            return summed
        return self.sum_of_taps(query, key, message, weight)

    def sum_of_taps(
        self, query: Tensor, key: Tensor, message: Callable[[Tensor], Tensor], weight: Tensor | None
    ) -> Tensor:
        """`meet` for sums, tap by tap in plain torch: any message, any size, and what recorders follow."""
        weight = torch.ones_like(key[:1, ..., :1]) if weight is None else weight
        # weights outside are 0
        terms = (
            message(query + shifted).to(_summing(key.dtype)) * share
            for shifted, share in zip(self._taps(key, 0.0), self._taps(weight, 0.0), strict=True)
        )
        return fold(torch.add, terms).to(key.dtype)

    def _offsets(self) -> tuple[tuple[int, ...], ...]:
        """From a position to each of its neighbours."""
        every = product(*(range(-(k // 2), k // 2 + 1) for k in self.kernel_size))
        return tuple(offset for offset in every if self.self_loops or any(offset))

    def _taps(self, values: Tensor, outside: float) -> Iterator[Tensor]:
        """For each offset, what lies there as seen from every position."""
        padding = [n for k in reversed(self.kernel_size) for n in (k // 2, k // 2)]
        padded = F.pad(values, (0, 0, *padding), value=outside)
        for offset in self._offsets():
            tap = padded
            for axis, (step, size, k) in enumerate(zip(offset, self.space, self.kernel_size, strict=True), 1):
                tap = part_of(tap, axis, step + k // 2, size)
            yield tap

    def _along_axes(self, values: Tensor, pool: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Pool over each axis in turn, seen as the height of images."""
        space = values.shape[1:-1]
        for axis, k in enumerate(self.kernel_size):
            images = values.reshape(-1, space[axis], math.prod(space[axis + 1 :]), values.shape[-1])
            values = on_image(lambda image, k=k: pool(image, k), images)
        return values.reshape(-1, *space, values.shape[-1])

    def _without_none(self, values: Tensor) -> Tensor:
        """Positions that have no neighbour hear nothing."""
        if self.self_loops:
            return values
        return values.masked_fill(self.in_degrees(values) == 0, 0.0)


def _sums(image: Tensor, k: int) -> Tensor:
    return F.avg_pool2d(image, (k, 1), 1, (k // 2, 0)) * k


def _maxima(image: Tensor, k: int) -> Tensor:
    return F.max_pool2d(image, (k, 1), 1, (k // 2, 0))


def _summing(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
