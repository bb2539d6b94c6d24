"""The maps on the way through a network: where their positions lie, and what they are made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from qna.parts.reach import Reach

# first and last position, both included
Interval = tuple[int, int]
# the reaches of a layer, one per axis
Reaches = tuple[Reach, ...]


@dataclass(frozen=True, eq=False)
class Places:
    """The positions of one map.

    Attributes:
        sizes: of the map, per axis.
        stride: pixels of the image per position, per axis.
        period: the smallest shift of an image, in whole pixels per axis, that shifts the map and all those
            before it by whole positions, and whole blocks of positions.
        sources: maps that it is made of, with the reaches by which it is.
    """

    sizes: tuple[int, ...]
    stride: tuple[Fraction, ...]
    period: tuple[int, ...]
    sources: tuple[tuple[Places, Reaches], ...] = ()

    @classmethod
    def of_image(cls, sizes: Sequence[int]) -> Places:
        """The pixels of an image."""
        return cls(tuple(sizes), (Fraction(1),) * len(sizes), (1,) * len(sizes))

    @classmethod
    def made_of(cls, sources: Iterable[tuple[Places, Reaches]], sizes: Sequence[int]) -> Places | None:
        """The positions of a map that a layer makes of others; None where these do not lie alike."""
        sources = tuple(sources)
        strides = {
            tuple(a * r.stride for a, r in zip(source.stride, reaches, strict=True))
            for source, reaches in sources
        }
        if len(strides) != 1:
            return None
        period = (1,) * len(sizes)
        for source, reaches in sources:
            # a shift by whole blocks of the output is one by whole steps of the input
            steps = ((a * r.step).numerator for a, r in zip(source.stride, reaches, strict=True))
            period = tuple(map(math.lcm, period, source.period, steps))
        return cls(tuple(sizes), strides.pop(), period, sources)


def needed(
    wanted: Mapping[Places, Interval], maps: Sequence[Places], axis: int
) -> Iterator[tuple[Places, Interval]]:
    """Every map that the positions in `wanted` are made of, with the interval of it that they need.

    What a layer sees outside a map is padding, which needs nothing.

    Args:
        wanted: of some maps, the first and the last position.
        maps: all of them, each behind those that it is made of.
        axis: along which.
    """
    needs = dict(wanted)
    for places in reversed(maps):
        if places not in needs:
            continue
        low, high = needs[places]
        yield places, (low, high)
        for source, reaches in places.sources:
            before, after = reaches[axis].sources(low, high)
            end = source.sizes[axis] - 1
            before, after = min(max(before, 0), end), max(min(after, end), 0)
            other = needs.get(source, (before, after))
            needs[source] = min(before, other[0]), max(after, other[1])
