"""One call of a function of torch on maps of known positions, as the rules see it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from qna.parts.reach import SAME_PLACE, Reach
from qna.tiling.places import Places


class NotLocal(Exception):
    """A call whose output positions depend on no bounded part of the map, or on one that is not known."""


@dataclass(frozen=True)
class Layout:
    """How the positions of a map lie in a tensor.

    Attributes:
        places: the positions; of a mean over the map, those that it is taken over.
        axes: the tensor's axes that run over them, counted from its end; none for what is made of means.
    """

    places: Places
    axes: tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """A function with what it was given and what it gave.

    Attributes:
        name: the function's, without what only tells methods, operators and in-place forms apart.
        args: by position.
        kwargs: by name.
        result: a tensor, or a list of them.
        layouts: of each tensor among the arguments that has positions, by its id.
    """

    name: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    result: Any
    layouts: Mapping[int, Layout]

    def bound(self, names: str) -> Mapping[str, Any]:
        """Arguments by name, where `names` are those of the function in their order."""
        return {**dict(zip(names.split(), self.args, strict=False)), **self.kwargs}

    def only(self, tensor: Tensor) -> Layout:
        """The layout of `tensor`, beside which no other argument may have positions."""
        if set(self.layouts) != {id(tensor)}:
            raise NotLocal("takes parameters that are made of a map")
        return self.layouts[id(tensor)]

    def tensors(self) -> Iterator[Tensor]:
        """All tensors among the arguments."""
        return tensors_in((self.args, tuple(self.kwargs.values())))

    def through(self, layout: Layout, reaches: Sequence[Reach]) -> tuple[Tensor, Layout]:
        """The result, whose positions on the axes of `layout` see its map by `reaches`, one per axis."""
        sizes = [self.result.shape[axis] for axis in layout.axes]
        places = Places.made_of([(layout.places, tuple(reaches))], sizes)
        assert places is not None
        return self.result, Layout(places, layout.axes)

    def kept(self, layout: Layout, axes: Sequence[int]) -> tuple[Tensor, Layout]:
        """The result, with the same positions on the given axes."""
        return self.result, Layout(layout.places, tuple(axes))

    def merged(self, layouts: Sequence[Layout]) -> tuple[Tensor, Layout]:
        """A result whose every position is made of the same position of several maps."""
        if len({layout.axes for layout in layouts}) > 1:
            raise NotLocal("puts maps together whose axes differ")
        axes = layouts[0].axes
        sizes = tuple(self.result.shape[axis] for axis in axes)
        distinct = list(dict.fromkeys(layout.places for layout in layouts))
        if any(places.sizes != sizes for places in distinct):
            raise NotLocal("repeats a map over another's positions")
        if len(distinct) == 1:
            return self.result, layouts[0]
        same = (SAME_PLACE,) * len(axes)
        places = Places.made_of([(source, same) for source in distinct], sizes)
        if places is None:
            strides = " and ".join(" x ".join(str(stride) for stride in source.stride) for source in distinct)
            raise NotLocal(f"puts maps together whose positions are {strides} pixels apart")
        return self.result, Layout(places, axes)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in a value, in whatever lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from tensors_in(tuple(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_in(part)


def index_of(ndim: int, axes: Sequence[int], spans: Sequence[slice]) -> tuple[slice, ...]:
    """The index of a part of a tensor: `spans` on `axes`, and all else whole."""
    index = [slice(None)] * ndim
    for axis, span in zip(axes, spans, strict=True):
        index[axis] = span
    return tuple(index)


def same_axes_of_a_view(shape: Sequence[int], axes: Sequence[int], viewed: Sequence[int]) -> list[int]:
    """Where the axes (from the end) of a tensor of `shape` are when it is viewed as `viewed`.

    An axis is the same where as many numbers lie behind it, and as many in it.
    """
    found = []
    for axis in axes:
        behind = math.prod(shape[len(shape) + axis + 1 :])
        places = [
            -i
            for i in range(1, len(viewed) + 1)
            if viewed[-i] == shape[axis] and math.prod(viewed[len(viewed) - i + 1 :]) == behind
        ]
        if not places:
            raise NotLocal(f"views a map {tuple(shape)} as {tuple(viewed)}, which mixes up its axes")
        found.append(places[0])
    return found
