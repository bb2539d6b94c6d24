"""Where an image is cut into tiles, what each of them has to see, and where its results belong."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from qna.tiling.follow import Followed
from qna.tiling.places import Interval, Places, needed


@dataclass(frozen=True)
class Cut:
    """One axis of a tile, in pixels.

    A network does to a tile what it does to the image where the tile begins at a multiple of the network's
    period and is as long as the image, up to multiples of the period: strides, windows and the padding that
    depends on a size then fall alike. Padding is right at the image's border, where the tile ends too, and
    wrong at the tile's other ends, which is why those lie outside of all that the core needs.

    Attributes:
        core: what the tile is responsible for.
        read: what the network sees for that.
        last: whether no tile follows.
    """

    core: slice
    read: slice
    last: bool

    def of_map(self, places: Places, axis: int) -> slice:
        """The positions of a map that the tile is responsible for, none where the map has ended before."""
        size, stride = places.sizes[axis], places.stride[axis]
        low = min(int(self.core.start / stride), size)
        return slice(low, size if self.last else min(int(self.core.stop / stride), size))

    def of_tile(self, places: Places, axis: int) -> slice:
        """The same positions in what the network makes of the tile alone."""
        whole, start = self.of_map(places, axis), int(self.read.start / places.stride[axis])
        return slice(whole.start - start, whole.stop - start)


@dataclass(frozen=True)
class ImageTile:
    """A part of an image: one cut per axis."""

    cuts: tuple[Cut, ...]

    @property
    def read(self) -> tuple[slice, ...]:
        """Pixels that the network sees."""
        return tuple(cut.read for cut in self.cuts)

    def of_map(self, places: Places) -> tuple[slice, ...]:
        """The positions of a map that the tile is responsible for."""
        return tuple(cut.of_map(places, axis) for axis, cut in enumerate(self.cuts))

    def of_tile(self, places: Places) -> tuple[slice, ...]:
        """The same positions in what the network makes of the tile alone."""
        return tuple(cut.of_tile(places, axis) for axis, cut in enumerate(self.cuts))


@dataclass(frozen=True)
class TilePlan:
    """How images of one size are run in tiles.

    Attributes:
        followed: what the network does with their positions.
        period: pixels per axis after which the network does the same again.
        cuts: per axis, from its start to its end.
    """

    followed: Followed
    period: tuple[int, ...]
    cuts: tuple[tuple[Cut, ...], ...]

    def __len__(self) -> int:
        return math.prod(map(len, self.cuts))

    def __iter__(self) -> Iterator[ImageTile]:
        return map(ImageTile, product(*self.cuts))

    @property
    def largest(self) -> tuple[int, ...]:
        """Pixels that the network sees at once at most, per axis: what memory depends on."""
        return tuple(max(_length(cut.read) for cut in cuts) for cuts in self.cuts)

    def sizes(self) -> list[tuple[int, ...]]:
        """Sizes of tiles in which every length that tiles have along an axis occurs."""
        lengths = [list({_length(cut.read): None for cut in cuts}) for cuts in self.cuts]
        longest = max(map(len, lengths))
        return [tuple(of_axis[i % len(of_axis)] for of_axis in lengths) for i in range(longest)]

    @property
    def halo(self) -> tuple[tuple[int, int], ...]:
        """Pixels that a tile sees before and behind its core at most, per axis."""
        return tuple(
            (
                max(cut.core.start - cut.read.start for cut in cuts),
                max(cut.read.stop - cut.core.stop for cut in cuts),
            )
            for cuts in self.cuts
        )

    @property
    def overhead(self) -> float:
        """Pixels that the network sees in all tiles, for each of the image."""
        seen = math.prod(sum(_length(cut.read) for cut in cuts) for cuts in self.cuts)
        return seen / math.prod(self.followed.image.sizes)


def plan_tiles(followed: Followed, tile: Sequence[int], halo: int | None) -> TilePlan:
    """Cut an image.

    Args:
        followed: what the network does with its positions.
        tile: pixels of a core per axis, rounded up to the network's period.
        halo: pixels that are seen around a core at least, up to the image's border; None for all that its
            results depend on.
    """
    # of all maps, those that lead to no result included: the network makes them of every tile
    period = tuple(map(math.lcm, *(places.period for places in followed.maps)))
    # so that every map has a position
    shortest = [
        max(n - math.floor((places.sizes[axis] - 1) * places.stride[axis]) for places in followed.maps)
        for axis, n in enumerate(followed.image.sizes)
    ]
    cuts = []
    for axis, (n, wanted, step) in enumerate(zip(followed.image.sizes, tile, period, strict=True)):
        side = -(-wanted // step) * step
        of_axis = []
        for start in range(0, n, side):
            core = slice(start, min(start + side, n))
            cut = Cut(core, core, core.stop == n)
            if start and not any(_length(cut.of_map(places, axis)) for places in followed.ends):
                continue  # what is left of the image fills no window
            before, after = _free(cut, followed, axis)
            if halo is not None:
                before, after = max(before, start - halo), max(after, n - core.stop - halo)
            before = max(0, min(before, n - after - shortest[axis]))
            read = slice(before // step * step, n - after // step * step)
            of_axis.append(replace(cut, read=read))
        cuts.append(tuple(of_axis))
    return TilePlan(followed, period, tuple(cuts))


def _free(cut: Cut, followed: Followed, axis: int) -> tuple[int, int]:
    """Pixels at the start and at the end of an axis that no result of a cut's core depends on.

    On the way to the results every map that is needed must lie in the tile, from the first position needed to
    the last: then the padding that they see is the image's own.
    """
    wanted: dict[Places, Interval] = {}
    for places in followed.ends:
        own = cut.of_map(places, axis)
        if _length(own):
            wanted[places] = own.start, own.stop - 1
    before, after = [], []
    for places, (low, high) in needed(wanted, followed.maps, axis):
        before.append(math.floor(low * places.stride[axis]))
        after.append(math.floor((places.sizes[axis] - 1 - high) * places.stride[axis]))
    return min(before), min(after)


def _length(part: slice) -> int:
    return part.stop - part.start
