"""From images with masks to what a network reads: framing and variation, of both together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qna._core.seeds import derive_seed, seeded
from qna.data.images.opening import open_each
from qna.data.images.transforms import LONGEST
from qna.data.images.vision import joint_transforms, typed_tensors
from qna.data.masks.labelled import MaskedFiles


class MaskBatch(NamedTuple):
    """What a network reads in one go.

    Attributes:
        images: float32 (B, C, H, W), standardised.
        masks: class of each pixel, int64 (B, H', W'); of images that are judged at the mask's own size.
        indices: position of each image in its data set, int64 (B,).
        skipped: a line on each image that could not be read.
    """

    images: Tensor
    masks: Tensor
    indices: Tensor
    skipped: list[str]


@dataclass(frozen=True)
class MaskVariation:
    """How an image and its mask vary together while a network is trained.

    Masks are resampled by nearest neighbour; where a movement brings in what is outside the image, it shows
    the mean colour and the mask says to ignore it.

    Attributes:
        size: side of the square result, in pixels.
        crop: smallest and largest part of the area that a random crop (ratio of sides 3/4 to 4/3) keeps; None
            brings the shorter side to `size` and takes a square from anywhere along the longer. Of an image
            longer than 16 times its width a piece of that shape is taken first, from anywhere.
        rotate: largest angle, in degrees.
        shift: largest displacement along each axis, as a part of the side.
        zoom: largest relative change of size.
        flip: mirror half of the images left to right.
        color: largest relative change of brightness, contrast and saturation; the mask stays.
    """

    size: int
    crop: tuple[float, float] | None = None
    rotate: float = 0.0
    shift: float = 0.0
    zoom: float = 0.0
    flip: bool = False
    color: float = 0.0

    def stages(self, mean: Sequence[float], ignore: int) -> list[Any]:
        """torchvision's joint transforms, in the order in which they are applied.

        Args:
            mean: colour of what comes into view, per channel in [0, 1].
            ignore: what the mask says of it.
        """
        v2, kinds = joint_transforms(), typed_tensors()
        if self.crop is not None:
            stages = [v2.RandomResizedCrop(self.size, scale=self.crop, antialias=True)]
        else:
            stages = [v2.Resize(self.size, antialias=True), v2.RandomCrop(self.size)]
        if self.rotate or self.shift or self.zoom:
            stages.append(
                v2.RandomAffine(
                    self.rotate,
                    translate=(self.shift, self.shift),
                    scale=(1 / (1 + self.zoom), 1 + self.zoom),
                    interpolation=v2.InterpolationMode.BILINEAR,
                    fill={kinds.Image: [255 * m for m in mean], kinds.Mask: ignore},
                )
            )
        if self.flip:
            stages.append(v2.RandomHorizontalFlip())
        if self.color:
            stages.append(v2.ColorJitter(self.color, self.color, self.color))
        return stages


@dataclass(frozen=True)
class MaskPreparation:
    """How stored images with masks become a network's input.

    Attributes:
        size: the shorter side of an image that is judged, in pixels.
        mean: per channel, of images in [0, 1].
        std: per channel, likewise.
        ignore: number of pixels that count nowhere.
        variation: while training; None shows one image a batch, whole, beside its mask as stored.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    ignore: int
    variation: MaskVariation | None = None

    def __call__(self, files: MaskedFiles, indices: Sequence[int], seed: int = 0) -> MaskBatch:
        """Read and prepare images; how one varies follows from `seed` and its index alone.

        Raises:
            InvalidInput: while training, if no image can be read.
        """
        images, masks, read, skipped = [], [], [], list[str]()
        training = self.variation is not None
        for index, (stored, classes) in open_each(files, indices, replace=training, skipped=skipped):
            image, mask = self._varied(stored, classes, derive_seed(seed, "mask", index))
            images.append(image)
            masks.append(mask)
            read.append(index)
        if not read:
            nothing = torch.empty(0, len(self.mean), self.size, self.size)
            return MaskBatch(nothing, nothing[:, 0].long(), torch.empty(0).long(), skipped)
        return MaskBatch(torch.stack(images), torch.stack(masks), torch.tensor(read), skipped)

    def _varied(self, image: Any, mask: Any, seed: int) -> tuple[Tensor, Tensor]:
        if self.variation is None:
            return framed(image, self.size, self.mean, self.std), torch.from_numpy(mask).long()
        kinds = typed_tensors()
        pair = joint_transforms().functional.pil_to_tensor(image), torch.from_numpy(mask)
        with seeded(seed):
            pair = _piece(*pair)
            pair = kinds.Image(pair[0]), kinds.Mask(pair[1])
            for stage in self._stages:
                pair = stage(*pair)
        return _standardised(pair[0].as_subclass(Tensor), self.mean, self.std), pair[1].as_subclass(
            Tensor
        ).long()

    @cached_property
    def _stages(self) -> list[Any]:
        assert self.variation is not None
        return self.variation.stages(self.mean, self.ignore)


def framed(image: Any, size: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """A whole PIL image as a network reads it: its shorter side `size` pixels, standardised, (C, H, W).

    Of an image that is longer than 16 times its width the longer side is brought to 16 times `size`: with the
    shorter at `size`, it would have no bound.
    """
    v2 = joint_transforms()
    pixels = v2.functional.pil_to_tensor(image)
    short, long = sorted(pixels.shape[1:])
    if long > LONGEST * short:
        whole = [max(1, round(n * LONGEST * size / long)) for n in pixels.shape[1:]]
        pixels = v2.functional.resize(pixels, whole, antialias=True)
    elif short != size:
        pixels = v2.functional.resize(pixels, [size], antialias=True)
    return _standardised(pixels, mean, std)


def _piece(pixels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """A piece of a very long image and its mask, from anywhere: all of it, resized, has no bound."""
    height, width = mask.shape
    longest = LONGEST * min(height, width)
    if max(height, width) <= longest:
        return pixels, mask
    start = int(torch.randint(max(height, width) - longest + 1, ()))
    axis = int(width > height)
    return pixels.narrow(1 + axis, start, longest), mask.narrow(axis, start, longest)


def _standardised(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    centre, spread = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))
    return (pixels.float() / 255 - centre) / spread
