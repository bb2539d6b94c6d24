"""Shapes with open sizes: ("batch", 3, "height", "width"), a name for every size that may be another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from qna._core.errors import InvalidInput

Shape = Sequence[int | str]

# what networks of images take
IMAGES = ("batch", 3, "height", "width")
# sizes to record with, of which no memory is touched: layers are to have several windows on every axis, since
# a recorder takes a 1 for a constant; primes, so that no two sizes along the way agree by chance
_RECORDED = (509, 617, 131)
# batches and sizes to try, of which the first is short and the second long
_TRIED = ((1, (37, 53, 5)), (3, (64, 41, 7)))


def open_names(shapes: Sequence[Shape]) -> list[str]:
    """Names of the open sizes, in their order; a name in two shapes is one size.

    Raises:
        InvalidInput: a shape holds something else than names and positive numbers, or no name at all.
    """
    names: dict[str, None] = {}
    for shape in shapes:
        for size in shape:
            if not isinstance(size, str) and (type(size) is not int or size < 1):
                raise InvalidInput(f"a shape holds names and positive integers, got {size!r} in {shape}")
            if isinstance(size, str):
                names[size] = None
    if not names:
        raise InvalidInput(
            f"no size of {tuple(map(tuple, shapes))} is open: give a name for one that may vary"
        )
    return list(names)


def recorded_sizes(names: Sequence[str]) -> dict[str, int]:
    """A size for each name, to record with: two images, and a map of some hundred positions per axis."""
    return dict(_named(names, 2, _RECORDED))


def tried_sizes(names: Sequence[str]) -> list[dict[str, int]]:
    """Sizes to try what was written with: two batches, maps that are no squares, odd and even."""
    return [dict(_named(names, batch, sizes)) for batch, sizes in _TRIED]


def empty(shapes: Sequence[Shape], sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
    """Tensors of these sizes, uninitialised."""
    return tuple(torch.empty(_filled(shape, sizes)) for shape in shapes)


def random(shapes: Sequence[Shape], sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
    """Tensors of these sizes, the same normal numbers every time.

    Raises:
        InvalidInput: a name has no size.
    """
    g = torch.Generator().manual_seed(0)
    return tuple(torch.randn(_filled(shape, sizes), generator=g) for shape in shapes)


def _filled(shape: Shape, sizes: Mapping[str, int]) -> list[int]:
    missing = [size for size in shape if isinstance(size, str) and size not in sizes]
    if missing:
        raise InvalidInput(f"no size is given for {', '.join(missing)} of {tuple(shape)}, got {dict(sizes)}")
    return [sizes[size] if isinstance(size, str) else size for size in shape]


def _named(names: Sequence[str], batch: int, sizes: Sequence[int]) -> Iterator[tuple[str, int]]:
    """The batch gets its own number; the others one after the other."""
    others = [name for name in names if name != "batch"]
    for name in names:
        yield name, batch if name == "batch" else sizes[others.index(name) % len(sizes)]
