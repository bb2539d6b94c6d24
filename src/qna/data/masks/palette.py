"""Colours of classes, and masks as PNG files that show them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qna._core.files import write_whole

Colour = tuple[int, int, int]


def colours(count: int) -> tuple[Colour, ...]:
    """Colours of `count` classes by the rule of PASCAL VOC, in which class 0 is black.

    Bits 0, 3 and 6 of a class's number are the first, second and third bit of its red, those one further up
    of its green, and those two further up of its blue.
    """

    def channel(number: int, first: int) -> int:
        return sum((number >> (first + 3 * k) & 1) << (7 - k) for k in range(3))

    return tuple((channel(n, 0), channel(n, 1), channel(n, 2)) for n in range(count))


def save_mask(path: Path, classes: Any, palette: Sequence[Colour]) -> None:
    """Write a mask as a PNG with a palette, whole or not at all.

    Args:
        path: of the file.
        classes: a number per pixel, uint8 (H, W), an array.
        palette: the colours of the classes from 0 on; further numbers get those of `colours`.

    Raises:
        OSError: if the disk is full or not writable.
    """
    from PIL import Image

    # from the array alone Pillow would make a grey image, and quantise its greys when it is given a palette
    image = Image.frombytes("P", (classes.shape[1], classes.shape[0]), classes.tobytes())
    # a number beyond a short palette would lose its upper bits in the file
    whole = (*palette, *colours(256)[len(palette) :])
    image.putpalette([value for colour in whole for value in colour])
    write_whole(path, lambda temporary: image.save(temporary, "PNG"))
