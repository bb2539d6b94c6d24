"""From images with boxes to what a detector reads: framing and variation, of both together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qna._core.seeds import derive_seed, seeded
from qna.data.boxes.labelled import BoxedFiles, Boxes
from qna.data.images.opening import open_each
from qna.data.images.vision import joint_transforms, typed_tensors

# pixels of a box that a crop leaves over, below which it is left out
_LEAST_SIDE = 1.0


class BoxBatch(NamedTuple):
    """What a detector reads in one go, and what is there.

    Attributes:
        images: float32 (B, C, H, W), standardised, each in the upper left corner; zeros beside it.
        mask: bool (B, H, W), True on each image.
        targets: per image "class_labels" int64 (n,) and "boxes" float32 (n, 4): centre, width and height as
            parts of the image; without crowds.
        truth: the boxes as they are stored.
        sizes: height and width of each image as it is stored.
        indices: position of each image in its data set, int64 (B,).
        skipped: a line on each image that could not be read.
    """

    images: Tensor
    mask: Tensor
    targets: list[dict[str, Tensor]]
    truth: list[Boxes]
    sizes: list[tuple[int, int]]
    indices: Tensor
    skipped: list[str]


@dataclass(frozen=True)
class BoxVariation:
    """How an image and its boxes vary together while a detector is trained.

    Attributes:
        crop: smallest and largest part of the area that a random crop of the image's own ratio of sides
            keeps; None for the whole image. Boxes are cut where it cuts.
        flip: mirror half of the images left to right.
        color: largest relative change of brightness, contrast and saturation.
    """

    crop: tuple[float, float] | None = None
    flip: bool = False
    color: float = 0.0


@dataclass(frozen=True)
class BoxPreparation:
    """How stored images with boxes become a detector's input.

    Attributes:
        size: pixels of the longer side; of both, where `square`.
        square: bring every image to a square instead of keeping its ratio of sides.
        mean: per channel, of images in [0, 1].
        std: per channel, likewise.
        variation: while training; a batch then stays full, the next image taking the place of one that
            cannot be read.
    """

    size: int
    square: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    variation: BoxVariation | None = None

    def __call__(self, files: BoxedFiles, indices: Sequence[int], seed: int = 0) -> BoxBatch:
        """Read and prepare images; how one varies follows from `seed` and its index alone.

        Raises:
            InvalidInput: while training, if no image can be read.
        """
        images, targets, read, skipped = [], [], [], list[str]()
        training = self.variation is not None
        for index, (image, stored) in open_each(files, indices, replace=training, skipped=skipped):
            read.append(index)
            pixels, boxes = self._varied(image, stored.apart(), derive_seed(seed, "boxes", index))
            images.append(pixels)
            targets.append(_relative(boxes, *pixels.shape[1:]))
        height, width = (max((image.shape[axis] for image in images), default=1) for axis in (1, 2))
        batch = torch.zeros(len(images), len(self.mean), height, width)
        mask = torch.zeros(len(images), height, width, dtype=torch.bool)
        for place, image in enumerate(images):
            batch[place, :, : image.shape[1], : image.shape[2]] = image
            mask[place, : image.shape[1], : image.shape[2]] = True
        truth, sizes = [files.boxes[i] for i in read], [files.sizes[i] for i in read]
        return BoxBatch(batch, mask, targets, truth, sizes, torch.tensor(read).long(), skipped)

    def image(self, image: Any) -> tuple[Tensor, Tensor]:
        """One PIL image as it is judged: pixels (1, C, H, W) and mask (1, H, W)."""
        pixels, _ = replace(self, variation=None)._varied(image, Boxes.of([], [], []), seed=0)
        return pixels[None], torch.ones(1, *pixels.shape[1:], dtype=torch.bool)

    def _varied(self, image: Any, boxes: Boxes, seed: int) -> tuple[Tensor, Boxes]:
        """Pixels (C, H, W), standardised, and the boxes in them."""
        kinds, size = typed_tensors(), self._target(image.height, image.width)
        corners = kinds.BoundingBoxes(boxes.corners, format="XYXY", canvas_size=(image.height, image.width))
        pair: Any = kinds.Image(image), corners
        with seeded(seed):
            for stage in self._stages(size, image.width / image.height):
                pair = stage(*pair)
        pixels, corners = (value.as_subclass(Tensor) for value in pair)
        kept = (corners[:, 2:] - corners[:, :2] >= _LEAST_SIDE).all(1)
        if self.variation is None or self.variation.crop is None:
            kept[:] = True  # only what a crop cuts is ever left out
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (pixels.float() / 255 - mean) / std, Boxes(corners[kept], *(v[kept] for v in boxes[1:]))

    def _target(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that an image is brought to."""
        if self.square:
            return self.size, self.size
        longer = max(height, width)
        return max(1, round(height * self.size / longer)), max(1, round(width * self.size / longer))

    def _stages(self, size: tuple[int, int], ratio: float) -> list[Any]:
        """torchvision's joint transforms, in the order in which they are applied."""
        v2, told = joint_transforms(), self.variation or BoxVariation()
        if told.crop is None:
            stages = [v2.Resize(size, antialias=True)]
        else:
            stages = [v2.RandomResizedCrop(size, scale=told.crop, ratio=(ratio, ratio), antialias=True)]
        if told.flip:
            stages.append(v2.RandomHorizontalFlip())
        if told.color:
            stages.append(v2.ColorJitter(told.color, told.color, told.color))
        return stages


def _relative(boxes: Boxes, height: int, width: int) -> dict[str, Tensor]:
    """Boxes in pixels as a detector learns them."""
    low, high = boxes.corners.split(2, -1)
    scale = boxes.corners.new_tensor([width, height])
    return {
        "class_labels": boxes.labels,
        "boxes": torch.cat([(low + high) / 2 / scale, (high - low) / scale], -1),
    }
