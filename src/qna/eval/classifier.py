"""A trained network together with what it takes to show it an image and to read its answer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from qna._core.errors import InvalidInput
from qna.data import LARGEST_SIDE, ImageData, Images, Photo, Preparation, TensorImages

NO_ANSWER = "the network answers with NaN or infinity"


def usable(logits: torch.Tensor) -> torch.Tensor:
    """Whether each row of logits (B, classes) has a softmax, so neither NaN nor plus infinity: bool (B,)."""
    return logits.float().amax(1).isfinite()


@dataclass(frozen=True)
class ImageView:
    """How a network sees images.

    Attributes:
        size: side of the square that it reads, in pixels.
        mean: per channel, of images in [0, 1].
        std: per channel, likewise.
        crop_pct: part of a photograph's shorter side that the centred square keeps.
        interpolation: of resizing, a name of torchvision's.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float = 1.0
    interpolation: str = "bicubic"

    def __post_init__(self):
        if not 1 <= self.size <= LARGEST_SIDE or not 0 < self.crop_pct <= 1:
            raise InvalidInput(
                f"a view needs a size from 1 to {LARGEST_SIDE:,} and crop_pct in (0, 1], "
                f"got {self.size} and {self.crop_pct}"
            )
        finite = all(map(math.isfinite, (*self.mean, *self.std)))
        if len(self.mean) != len(self.std) or not finite or not all(s > 0 for s in self.std):
            raise InvalidInput(
                "mean and std need one finite number per channel, std above 0, "
                f"got {self.mean} and {self.std}"
            )

    @property
    def channels(self) -> int:
        """Colour channels that the network reads."""
        return len(self.mean)

    def pixels(self, images: Images) -> Preparation:
        """What frames `images` for the network and leaves their pixels in [0, 1], not standardised.

        Images in memory are shown whole, as in training.
        """
        photo = None
        if not isinstance(images, TensorImages):
            photo = Photo(self.size, self.crop_pct, interpolation=self.interpolation)
        plain = (0.0,) * self.channels, (1.0,) * self.channels
        return Preparation(self.size, *plain, photo)

    def standardise(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels (B, C, H, W) in [0, 1] as the network reads them."""
        mean, std = (pixels.new_tensor(v).view(1, -1, 1, 1) for v in (self.mean, self.std))
        return (pixels - mean) / std


@dataclass(frozen=True)
class Classifier:
    """A network that names what is on an image.

    Attributes:
        name: what it is called in tables.
        network: (B, C, H, W) -> logits (B, classes), in evaluation mode.
        classes: names of the logits, in their order.
        view: how it sees images.
        architecture: timm's name of the network.
        data: name of the data set whose classes it learned, if that is known.
        data_dir: where the files of that data set were, if they had a place of their own.
    """

    name: str
    network: nn.Module
    classes: tuple[str, ...]
    view: ImageView
    architecture: str = ""
    data: str | None = None
    data_dir: str | None = None

    @property
    def parameters(self) -> int:
        """Numbers in the network's parameters."""
        return sum(p.numel() for p in self.network.parameters())

    def require_fit(self, data: ImageData) -> None:
        """Check that its logits mean the classes of `data`.

        Raises:
            InvalidInput: if channels, the number of classes, or the names that it learned differ.
        """
        own, other = len(self.classes), len(data.classes)
        if own != other:
            raise InvalidInput(f"{self.name} tells {own} classes apart, but {data.name} has {other}")
        if self.view.channels != data.channels:
            raise InvalidInput(
                f"{self.name} reads images of {self.view.channels} channels, "
                f"but {data.name} has {data.channels}"
            )
        if self.data is None:
            return
        for number, (learned, named) in enumerate(zip(self.classes, data.classes, strict=True)):
            if learned != named:
                raise InvalidInput(
                    f"{self.name} learned {learned!r} as class {number}, which {data.name} calls {named!r}; "
                    "give the data set that it was trained on"
                )
