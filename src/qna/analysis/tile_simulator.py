"""What Generalized Neighborhood Attention can gain on tiled hardware, counted without running it.

Hassani et al., "Generalized Neighborhood Attention", arXiv 2504.16922, announce such a simulator. A fused
kernel holds one tile of queries and passes over the tiles of keys that at least one of these queries attends;
what of such a tile is masked is computed in vain. The count is a product over the axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import product
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qna._core.checks import per_axis
from qna.ops.neighborhood.geometry import WindowAxis, window_axes

_OWNER = "simulate_gna"

Tile = tuple[int, ...]

# tiles (queries, keys) of NATTEN's forward kernels for Hopper and Blackwell GPUs, from its documentation
TILES: dict[int, tuple[tuple[Tile, Tile], ...]] = {
    1: (((256,), (128,)), ((128,), (128,))),
    2: (
        *product(((16, 16), (8, 32)), ((16, 8), (8, 16), (4, 32))),
        ((16, 8), (16, 8)),
    ),
    3: (
        *product(((8, 4, 8), (4, 8, 8), (2, 8, 16)), ((4, 4, 8), (2, 8, 8))),
        ((4, 4, 8), (4, 4, 8)),
        ((2, 8, 8), (2, 8, 8)),
    ),
}


class AxisVisits(NamedTuple):
    """Tiles along one axis, of all its dilation groups.

    Attributes:
        visited: pairs of a tile of queries and a tile of keys that it visits.
        unmasked: those of them in which every query attends every key.
        worst: the most tiles of keys that one tile of queries visits.
    """

    visited: int
    unmasked: int
    worst: int


@dataclass(frozen=True)
class TileSimulation:
    """What one choice of stride and tiles can gain. Counted, not measured.

    Attributes:
        space: positions of the map, per axis.
        window: keys of a window, per axis.
        stride: queries that share a window, per axis.
        dilation: positions between keys, per axis.
        causal: which axes are causal.
        q_tile: queries of a tile, per axis.
        kv_tile: keys of a tile, per axis.
        visited: tiles of keys that are visited, summed over all tiles of queries.
        unmasked: those of them in which nothing is masked. A tile that hangs over the map is masked.
        dense: what attention of all to all would visit.
        worst: the most tiles of keys that one tile of queries visits.
        speedup_mean: bound on the speed-up over attention of all to all: `dense` / `visited`.
        speedup_worst: the same of the tile of queries that visits the most.
        flop_bound: the same where nothing is computed in vain: pairs of all to all / pairs that are attended.
        window_error: mean over the queries of the distance between the window that a query would have alone
            (stride 1) and that of its stride group: positions per axis, added over the axes.
    """

    space: Tile
    window: Tile
    stride: Tile
    dilation: Tile
    causal: tuple[bool, ...]
    q_tile: Tile
    kv_tile: Tile
    visited: int
    unmasked: int
    dense: int
    worst: int
    speedup_mean: float
    speedup_worst: float
    flop_bound: float
    window_error: float

    @property
    def block_sparse(self) -> bool:
        """Whether no visited tile holds a masked pair, so that no kernel needs a mask."""
        return self.visited == self.unmasked

    def as_dict(self) -> dict[str, Any]:
        """All numbers by name, for JSON."""
        return {**asdict(self), "block_sparse": self.block_sparse}


def simulate_gna(
    space: Sequence[int],
    window: int | Sequence[int],
    stride: int | Sequence[int],
    *,
    q_tile: int | Sequence[int],
    kv_tile: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    is_causal: bool | Sequence[bool] = False,
) -> TileSimulation:
    """Count the tiles that Generalized Neighborhood Attention visits.

    Args:
        space: positions of the map, one to three axes or more.
        window: keys of a window; an integer or one per axis, as all that follow.
        stride: queries that share one window.
        q_tile: queries of a tile.
        kv_tile: keys of a tile.
        dilation: positions between keys. Each dilation group is tiled for itself.
        is_causal: whether a query sees nothing after itself.

    Raises:
        InvalidInput: sizes that are none, or windows that the map or the stride does not allow.
    """
    axes = _axes(space, window, stride, dilation, is_causal)
    q_tile, kv_tile = _tile("q_tile", q_tile, axes), _tile("kv_tile", kv_tile, axes)
    counted = [axis_visits(*axis) for axis in zip(axes, q_tile, kv_tile, strict=True)]
    return _simulation(axes, q_tile, kv_tile, counted)


def search_gna(
    space: Sequence[int],
    window: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    *,
    q_tile: int | Sequence[int] | None = None,
    kv_tile: int | Sequence[int] | None = None,
    dilation: int | Sequence[int] = 1,
    is_causal: bool | Sequence[bool] = False,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[TileSimulation]:
    """The strides and tiles that nothing beats: more speed-up costs more window error.

    Errors add up over the axes and visits multiply, so that what is beaten on one axis is beaten with all
    others, and the front of the whole is made of the fronts of the axes.

    Args:
        space: as in `simulate_gna`, with one to three axes where tiles are to be found.
        window: as there.
        stride: as there, or None for all from 1 to the window.
        q_tile: as there, or None for those of `TILES`.
        kv_tile: as there, or None for those of `TILES`.
        dilation: as there.
        is_causal: as there.
        progress: called with the steps that are done, and of how many.

    Returns:
        By rising window error, and so by rising mean speed-up.
    """
    axes = _axes(space, window, 1 if stride is None else stride, dilation, is_causal)
    pairs = list(_tile_pairs(axes, q_tile, kv_tile))
    strides = [range(1, axis.kernel + 1) if stride is None else (axis.stride,) for axis in axes]
    total, done = sum(map(len, strides)) * (len(pairs) + 1), 0

    def told(of_axis: WindowAxis) -> WindowAxis:
        nonlocal done
        done += 1
        progress(done, total)
        return of_axis

    candidates = [
        [(a, window_error(told(a))) for a in (axis._replace(stride=s) for s in some)]
        for axis, some in zip(axes, strides, strict=True)
    ]
    found: list[_Point] = []
    for q, kv in pairs:
        front = [_Point(Fraction(0), Fraction(1), (), (), q, kv)]
        for of_axis, tq, tkv in zip(candidates, q, kv, strict=True):
            points = []
            for axis, error in of_axis:
                counted = axis_visits(told(axis), tq, tkv)
                part = Fraction(counted.visited, _dense(axis, tq, tkv))
                points.append(_Point(error, part, (axis,), (counted,), (), ()))
            front = _unbeaten([old.and_axis(new) for old in front for new in _unbeaten(points)])
        found += front
    return [_simulation(p.axes, p.q_tile, p.kv_tile, p.counted) for p in _unbeaten(found)]


def axis_visits(axis: WindowAxis, q_tile: int, kv_tile: int) -> AxisVisits:
    """Count along one axis."""
    visited = unmasked = worst = 0
    for group, times in _groups(axis):
        spans = _spans(group, q_tile)
        tiles = spans.last // kv_tile - spans.first // kv_tile + 1
        full = (spans.last_of_all + 1) // kv_tile - (spans.first_of_all + kv_tile - 1) // kv_tile
        visited += times * int(tiles.sum())
        unmasked += times * int(full.clamp(min=0).sum())
        worst = max(worst, int(tiles.max()))
    return AxisVisits(visited, unmasked, worst)


def window_error(axis: WindowAxis) -> Fraction:
    """Mean over the queries of the distance, in positions, between the window and that of stride 1."""
    queries = torch.arange(axis.size)
    moved = axis.starts(queries) - axis._replace(stride=1).starts(queries)
    return Fraction(int(moved.abs().sum()), axis.size)


def axis_pattern(axis: WindowAxis, q_tile: int, kv_tile: int) -> list[list[int]]:
    """Tiles of queries x of keys of the first dilation group: 0 not visited, 1 partly masked, 2 unmasked."""
    group, _ = next(_groups(axis))
    spans = [t[:, None] for t in _spans(group, q_tile)]
    first = torch.arange(0, group.size, kv_tile)[None]
    last = first + kv_tile - 1
    visited = (last >= spans[0]) & (first <= spans[1])
    unmasked = (first >= spans[2]) & (last <= spans[3])
    return (visited.int() + (visited & unmasked).int()).tolist()


def patterns(simulation: TileSimulation) -> list[list[list[int]]]:
    """`axis_pattern` of every axis; the pattern of the map is their product."""
    s = simulation
    axes = _axes(s.space, s.window, s.stride, s.dilation, s.causal)
    return [axis_pattern(*axis) for axis in zip(axes, s.q_tile, s.kv_tile, strict=True)]


class _Spans(NamedTuple):
    """Keys of each tile of queries: first and last that one attends, first and last that all attend."""

    first: Tensor
    last: Tensor
    first_of_all: Tensor
    last_of_all: Tensor


class _Point(NamedTuple):
    """A choice for the axes so far: its error, the part of all tiles that it visits, what it is made of."""

    error: Fraction
    part: Fraction
    axes: tuple[WindowAxis, ...]
    counted: tuple[AxisVisits, ...]
    q_tile: Tile
    kv_tile: Tile

    def and_axis(self, other: _Point) -> _Point:
        return self._replace(
            error=self.error + other.error,
            part=self.part * other.part,
            axes=self.axes + other.axes,
            counted=self.counted + other.counted,
        )

    @property
    def masked(self) -> bool:
        return any(axis.visited > axis.unmasked for axis in self.counted)


def _unbeaten(points: list[_Point]) -> list[_Point]:
    """By rising error those that visit less than all before; of equals one in which nothing is masked."""
    kept: list[_Point] = []
    for point in sorted(points, key=lambda p: (p.error, p.part, p.masked)):
        if not kept or point.part < kept[-1].part:
            kept.append(point)
    return kept


def _groups(axis: WindowAxis) -> Iterator[tuple[WindowAxis, int]]:
    """The dilation groups, each as an axis of its own, and how many there are of it."""
    length, longer = divmod(axis.size, axis.dilation)
    for size, times in ((length + 1, longer), (length, axis.dilation - longer)):
        if times:
            yield axis._replace(size=size, dilation=1), times


def _spans(group: WindowAxis, q_tile: int) -> _Spans:
    # windows never move back from one query to the next, and those of neighbours meet: the outer queries tell
    first = torch.arange(0, group.size, q_tile)
    last = (first + q_tile - 1).clamp(max=group.size - 1)
    start, latest = group.starts(first), group.starts(last)
    if group.causal:
        return _Spans(start, last, latest, first)
    return _Spans(start, latest + group.kernel - 1, latest, start + group.kernel - 1)


def _dense(axis: WindowAxis, q_tile: int, kv_tile: int) -> int:
    return -(-axis.size // q_tile) * -(-axis.size // kv_tile)


def _simulation(
    axes: Sequence[WindowAxis], q_tile: Tile, kv_tile: Tile, counted: Sequence[AxisVisits]
) -> TileSimulation:
    space = tuple(axis.size for axis in axes)
    dense = prod(_dense(*axis) for axis in zip(axes, q_tile, kv_tile, strict=True))
    row = prod(-(-size // tile) for size, tile in zip(space, kv_tile, strict=True))
    visited, worst = prod(c.visited for c in counted), prod(c.worst for c in counted)
    return TileSimulation(
        space=space,
        window=tuple(axis.kernel for axis in axes),
        stride=tuple(axis.stride for axis in axes),
        dilation=tuple(axis.dilation for axis in axes),
        causal=tuple(axis.causal for axis in axes),
        q_tile=q_tile,
        kv_tile=kv_tile,
        visited=visited,
        unmasked=prod(c.unmasked for c in counted),
        dense=dense,
        worst=worst,
        speedup_mean=dense / visited,
        speedup_worst=row / worst,
        flop_bound=prod(size**2 for size in space) / prod(axis.pairs() for axis in axes),
        window_error=float(sum(map(window_error, axes))),
    )


def _axes(
    space: Sequence[int], window: Any, stride: Any, dilation: Any, causal: Any
) -> tuple[WindowAxis, ...]:
    space = per_axis(f"{_OWNER}: space", space, len(space), minimum=1)
    return window_axes(_OWNER, space, window, stride=stride, dilation=dilation, is_causal=causal)


def _tile(name: str, tile: int | Sequence[int], axes: Sequence[WindowAxis]) -> Tile:
    return per_axis(f"{_OWNER}: {name}", tile, len(axes), minimum=1)


def _tile_pairs(axes: Sequence[WindowAxis], q_tile: Any, kv_tile: Any) -> Iterator[tuple[Tile, Tile]]:
    """What is given beside what is known of the other."""
    known = TILES.get(len(axes), ())
    if q_tile is None and kv_tile is None:
        return iter(known)
    queries = [q for q, _ in known] if q_tile is None else [_tile("q_tile", q_tile, axes)]
    keys = [kv for _, kv in known] if kv_tile is None else [_tile("kv_tile", kv_tile, axes)]
    return product(dict.fromkeys(queries), dict.fromkeys(keys))
