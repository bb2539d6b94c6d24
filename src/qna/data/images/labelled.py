"""Labelled images, in memory or in files, and the two parts of a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from qna._core.errors import InvalidInput
from qna.data.images.decoding import decode


class Images(Protocol):
    """Labelled images that can be opened one by one, in any order."""

    def __len__(self) -> int: ...

    def open(self, index: int) -> tuple[Any, int]:
        """A PIL image and its label.

        Raises:
            UnreadableImage: with the image's name and the cause.
        """
        ...


@dataclass(frozen=True)
class TensorImages:
    """Images of one size in memory.

    Attributes:
        pixels: uint8 (N, C, H, W), C 1 or 3.
        labels: int64 (N,).
    """

    pixels: torch.Tensor
    labels: torch.Tensor

    def __post_init__(self):
        if self.pixels.ndim != 4 or self.pixels.dtype != torch.uint8 or len(self.pixels) != len(self.labels):
            raise InvalidInput(
                "images must be uint8 (N, C, H, W) with one label each, got "
                f"{self.pixels.dtype} {tuple(self.pixels.shape)} and {len(self.labels)} labels"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def open(self, index: int) -> tuple[Any, int]:
        """A PIL image, grey or RGB, and its label."""
        from PIL import Image

        pixels = self.pixels[index].movedim(0, -1).squeeze(-1)
        return Image.fromarray(pixels.numpy()), int(self.labels[index])


@dataclass(frozen=True)
class FileImages:
    """Images in files or archives, decoded when they are opened, always RGB.

    Attributes:
        names: what each image is called in messages.
        labels: one per image.
        read: gives the bytes of the image at an index.
    """

    names: Sequence[str]
    labels: Sequence[int]
    read: Callable[[int], bytes] = field(repr=False)

    def __len__(self) -> int:
        return len(self.names)

    def open(self, index: int) -> tuple[Any, int]:
        """An RGB PIL image and its label."""
        return decode(self.read, index, self.names[index]), self.labels[index]


@dataclass(frozen=True)
class ImageData:
    """A data set: images to train on, images held out, and what both share.

    Attributes:
        name: the name that it is chosen by.
        classes: the label's names, in the labels' order.
        train: images to train on.
        held_out: images to evaluate on; never trained on.
        mean: per channel, of the training images scaled to [0, 1].
        std: per channel, likewise.
        origin: where the images came from, in a few words.
    """

    name: str
    classes: tuple[str, ...]
    train: Images
    held_out: Images
    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str

    @property
    def channels(self) -> int:
        """Colour channels of every image."""
        return len(self.mean)


def tensor_data(
    name: str, classes: Sequence[str], train: TensorImages, held_out: TensorImages, origin: str
) -> ImageData:
    """A data set in memory, with the statistics of its training images."""
    mean, std = channel_statistics(train.pixels)
    return ImageData(name, tuple(classes), train, held_out, mean, std, origin)


def channel_statistics(pixels: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 images (N, C, H, W), scaled to [0, 1]."""
    # counts per value are exact and need no float copy of the whole set
    values = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([torch.bincount(p.flatten(), minlength=256) for p in pixels.unbind(1)]).double()
    share = counts / counts.sum(1, keepdim=True)
    mean = share @ values
    std = (share @ values.square() - mean.square()).sqrt()
    return tuple(mean.tolist()), tuple(std.tolist())
