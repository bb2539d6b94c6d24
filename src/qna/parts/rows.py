"""Which positions of a map each position of the next one is made of: a matrix without its zeros."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from qna.ops._shared.window import Window
from qna.ops.neighborhood.geometry import WindowAxis


class PositionRows(NamedTuple):
    """The nonzero entries of a matrix from positions (columns) to positions (rows), row by row.

    Positions are those of a map, flattened. A matrix of n' rows with windows of K positions takes n' K
    numbers per image, not n' n.

    Attributes:
        shares: (B, n', K), at least fp32; a row sums to 1, or to 0 where a window sees nothing of the map.
        sources: int64 (n', K), the column of each entry; any column where the share is 0.
    """

    shares: Tensor
    sources: Tensor

    def pull(self, relevance: Tensor, positions: int) -> Tensor:
        """The product of row vectors with the matrix: (B, n') -> (B, positions)."""
        spread = (relevance[:, :, None] * self.shares).flatten(1)
        index = self.sources.flatten().expand(len(spread), -1)
        return spread.new_zeros(len(spread), positions).scatter_add_(1, index, spread)

    def dense(self, positions: int) -> Tensor:
        """The matrix itself: (B, n', positions)."""
        batch, rows, _ = self.shares.shape
        each = torch.eye(rows, dtype=self.shares.dtype, device=self.shares.device)
        repeated = PositionRows(self.shares.repeat_interleave(rows, 0), self.sources)
        return repeated.pull(each.repeat(batch, 1), positions).unflatten(0, (batch, rows))


def whole_map_rows(shares: Tensor) -> PositionRows:
    """Rows of attention in which every position sees the whole map.

    Args:
        shares: (B, H, W, h, H, W); the mean over heads is taken.
    """
    shares = shares.mean(3).flatten(3).flatten(1, 2)
    n = shares.shape[-1]
    return PositionRows(shares, torch.arange(n, device=shares.device).expand(shares.shape[1], -1))


def matrix_rows(shares: Tensor) -> PositionRows:
    """Rows of attention (B, h, N, M) in which every position sees all; the mean over heads is taken."""
    shares = shares.mean(1)
    rows, columns = shares.shape[1:]
    return PositionRows(shares, torch.arange(columns, device=shares.device).expand(rows, -1))


def received(rows: PositionRows, even: Tensor, positions: int) -> Tensor:
    """What each position gets from all rows over what it gets of even ones: (B, positions).

    Args:
        rows: in which every position is seen.
        even: their shares (n', K) where attention is even.
        positions: of the map that they look at.
    """
    every_row = torch.ones_like(rows.shares[:, :, 0])
    of_even = PositionRows(even[None], rows.sources).pull(even.new_ones(1, len(even)), positions)
    return rows.pull(every_row, positions) / of_even


def window_sources(size: Sequence[int], window: Window, device: torch.device) -> Tensor:
    """Flattened positions under each tap of each window over a map of `size`: int64 (n', K).

    A tap outside the map gets a position at its edge.
    """
    sources = torch.zeros((), dtype=torch.int64, device=device)
    axes = len(window.kernel)
    for axis, n in enumerate(size):
        starts = torch.arange(window.out[axis], device=device) * window.stride[axis] - window.before[axis]
        taps = torch.arange(window.kernel[axis], device=device) * window.dilation[axis]
        places = (starts[:, None] + taps).clamp(0, n - 1)
        shape = [1] * (2 * axes)
        shape[axis], shape[axes + axis] = places.shape
        sources = sources * n + places.view(shape)
    return sources.flatten(0, axes - 1).flatten(1)


def neighborhood_sources(
    axes: Sequence[WindowAxis], size: Sequence[int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Flattened positions under each tap of the window of each position of a map.

    Args:
        axes: the windows, also over a map that was filled up behind its end.
        size: of the map itself.
        device: of what comes out.

    Returns:
        int64 (n, K) and bool (n, K), False for taps that are not attended or lie outside the map, whose
        position is some other.
    """
    sources = torch.zeros((), dtype=torch.int64, device=device)
    attended = torch.ones((), dtype=torch.bool, device=device)
    for number, (axis, n) in enumerate(zip(axes, size, strict=True)):
        queries = torch.arange(n, device=device)
        starts, taps = axis.starts(queries), torch.arange(axis.kernel, device=device)
        keys = starts[:, None] + taps * axis.dilation
        seen = (taps < axis.counts(queries, starts)[:, None]) & (keys >= 0) & (keys < n)
        shape = [1] * (2 * len(axes))
        shape[number], shape[len(axes) + number] = n, axis.kernel
        sources = sources * n + keys.clamp(0, n - 1).view(shape)
        attended = attended & seen.view(shape)
    both = (t.flatten(0, len(axes) - 1).flatten(1) for t in (sources, attended))
    return tuple(both)  # pyright: ignore[reportReturnType]
