"""Images in files with their masks, and the two parts of a data set of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qna.data.images.decoding import decode
from qna.data.images.folder import PathReader
from qna.data.masks.decoding import read_mask
from qna.data.masks.palette import Colour


@dataclass(frozen=True)
class MaskedFiles:
    """Images with masks, decoded when they are opened.

    Attributes:
        images: a file per image.
        masks: a PNG file per image, in the same order.
        digest: of names and of the masks' pixels.
        pixels: of each class in all masks; those to be ignored are not in it.
    """

    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    digest: str = ""
    pixels: tuple[int, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.images)

    def open(self, index: int) -> tuple[Any, Any]:
        """An RGB PIL image, and its mask as uint8 (H, W).

        Raises:
            UnreadableImage: with the image's name and the cause.
        """
        image = decode(PathReader(self.images), index, str(self.images[index]))
        return image, read_mask(self.masks[index])[0]


@dataclass(frozen=True)
class MaskData:
    """A data set: images to train on, images held out, and what both share.

    Attributes:
        name: the name that it is chosen by.
        classes: names of the numbers in the masks, from 0 on.
        train: to train on.
        held_out: to judge on; never trained on.
        mean: per channel, of images in [0, 1].
        std: per channel, likewise.
        ignore: number of pixels that count nowhere.
        palette: colours of the classes.
        origin: where the images came from, in a few words.
    """

    name: str
    classes: tuple[str, ...]
    train: MaskedFiles
    held_out: MaskedFiles
    mean: tuple[float, ...]
    std: tuple[float, ...]
    ignore: int
    palette: Sequence[Colour]
    origin: str

    @property
    def channels(self) -> int:
        """Colour channels of every image."""
        return len(self.mean)
