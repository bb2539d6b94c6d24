"""Images in files with boxes around what they show, and the two parts of a data set of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qna.data.images.decoding import UnreadableImage, decode
from qna.data.images.folder import PathReader


class Boxes(NamedTuple):
    """The boxes of one image.

    Attributes:
        corners: float32 (n, 4): left, top, right, bottom, in pixels.
        labels: int64 (n,), positions among the classes.
        crowd: bool (n,): a group that is not taken apart; it is not learned, and what is found in it counts
            neither as right nor as wrong.
    """

    corners: Tensor
    labels: Tensor
    crowd: Tensor

    @classmethod
    def of(cls, rows: list[tuple[float, ...]], labels: list[int], crowd: list[bool]) -> Boxes:
        """The same as tensors."""
        return cls(torch.tensor(rows).view(-1, 4), torch.tensor(labels).long(), torch.tensor(crowd).bool())

    def apart(self) -> Boxes:
        """Without crowds."""
        return Boxes(*(values[~self.crowd] for values in self))


@dataclass(frozen=True)
class BoxedFiles:
    """Images with boxes, decoded when they are opened.

    Attributes:
        paths: a file per image.
        names: what each is called in the annotations.
        sizes: height and width of each, as the annotations say.
        boxes: of each.
    """

    paths: tuple[Path, ...]
    names: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    boxes: tuple[Boxes, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.paths)

    def open(self, index: int) -> tuple[Any, Boxes]:
        """An RGB PIL image and its boxes.

        Raises:
            UnreadableImage: with the image's name and the cause, which may be that it has another size than
                its boxes were drawn for.
        """
        path = self.paths[index]
        image = decode(PathReader(self.paths), index, str(path))
        height, width = self.sizes[index]
        if image.size != (width, height):
            raise UnreadableImage(
                f"{path}: {image.width} x {image.height} pixels, and its boxes are of {width} x {height}"
            )
        return image, self.boxes[index]

    @cached_property
    def digest(self) -> str:
        """Of names, sizes and boxes; the pixels would take too long."""
        digest = hashlib.blake2b(digest_size=8)
        for name, size, boxes in zip(self.names, self.sizes, self.boxes, strict=True):
            digest.update(f"{name}\0{size}\0".encode())
            for values in boxes:
                digest.update(values.numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class BoxData:
    """A data set: images to train on, images held out, and what both share.

    Attributes:
        name: the name that it is chosen by.
        classes: names of the labels, in their order.
        train: to train on.
        held_out: to judge on; never trained on.
        mean: per channel, of images in [0, 1].
        std: per channel, likewise.
        origin: where the images came from, in a few words.
    """

    name: str
    classes: tuple[str, ...]
    train: BoxedFiles
    held_out: BoxedFiles
    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str
