"""Labelled images, held in memory, and the pair of training and held-out images that makes a data set."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from qna._core.errors import InvalidInput


@dataclass(frozen=True)
class TensorImages:
    """Images of one size in memory.

    Attributes:
        pixels: uint8 (N, C, H, W).
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
    train: TensorImages
    held_out: TensorImages
    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str

    @property
    def channels(self) -> int:
        """Colour channels of every image."""
        return len(self.mean)


def channel_statistics(pixels: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 images (N, C, H, W), scaled to [0, 1]."""
    # counts per value are exact and need no float copy of the whole set
    values = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([torch.bincount(p.flatten(), minlength=256) for p in pixels.unbind(1)]).double()
    share = counts / counts.sum(1, keepdim=True)
    mean = share @ values
    std = (share @ values.square() - mean.square()).sqrt()
    return tuple(mean.tolist()), tuple(std.tolist())
