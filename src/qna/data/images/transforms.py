"""From stored images to what a network reads: framing, variation while training, standardisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from qna._core.errors import check_choice
from qna._core.seeds import derive_seed, seeded, uniforms
from qna.data.images.labelled import Images, TensorImages
from qna.data.images.opening import open_each
from qna.data.images.vision import augmentation_policy, photo_transforms

# side of the largest square that a network is given; its pixels take 200 MB
LARGEST_SIDE = 2**12
# draws per image: angle, zoom, shift along each axis, mirror
_DRAWS = 5
# of an image that is longer than so many times its width, the ends are cut off before it is resized
LONGEST = 16


class Batch(NamedTuple):
    """What a network reads in one go.

    Attributes:
        images: float32 (B, C, H, W).
        labels: int64 (B,).
        indices: position of each image in its data set, int64 (B,).
        skipped: a line on each image that could not be read.
    """

    images: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor
    skipped: list[str]


@dataclass(frozen=True)
class Jitter:
    """Random movements of an image: a mirroring, and the others in one interpolation.

    Attributes:
        rotate: largest angle, in degrees.
        shift: largest displacement along each axis, as a part of the image's side.
        zoom: largest relative change of size.
        flip: mirror half of the images left to right.
    """

    rotate: float = 0.0
    shift: float = 0.0
    zoom: float = 0.0
    flip: bool = False

    def __call__(self, images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        """Move float images (B, C, H, W) by `draws` (B, 5) in [0, 1); what comes into view is 0."""
        if self.flip:
            images = torch.where(draws[:, 4, None, None, None] < 0.5, images.flip(-1), images)
        if not (self.rotate or self.shift or self.zoom):
            return images
        signed = draws[:, :4] * 2 - 1
        angle = signed[:, 0] * math.radians(self.rotate)
        # a zoom by z and by 1/z are equally likely
        scale = torch.exp(signed[:, 1] * math.log1p(self.zoom))
        # grid coordinates run over [-1, 1], so a side is 2 long
        move = 2 * self.shift * signed[:, 2:4]
        cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
        theta = torch.stack(
            [torch.stack([cos, -sin, move[:, 0]], 1), torch.stack([sin, cos, move[:, 1]], 1)], 1
        )
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, align_corners=False)


@dataclass(frozen=True)
class Photo:
    """Framing and colours of one PIL image, in the order in which they are applied.

    Attributes:
        size: side of the square result, in pixels.
        crop_pct: without `crop`, the part of the shorter side that the centred square keeps.
        crop: smallest and largest part of the area that a random crop keeps (ratio of sides 3/4 to 4/3), or
            None for the centred square.
        color: largest relative change of brightness, contrast and saturation.
        policy: timm's text for RandAugment and its kin, "rand-m9-mstd0.5" for example.
        mean: colour that the policy fills with, per channel in [0, 1].
        interpolation: of resizing: "bicubic", "bilinear", or another name of torchvision's.
    """

    size: int
    crop_pct: float = 1.0
    crop: tuple[float, float] | None = None
    color: float = 0.0
    policy: str | None = None
    mean: tuple[float, ...] = (0.5,)
    interpolation: str = "bicubic"

    def __call__(self, image: Any, seed: int) -> Any:
        """PIL image -> PIL image of `size` x `size`, of the same mode; all draws follow from `seed`."""
        with seeded(seed):
            for stage in self._stages:
                image = stage(image)
        return image

    @cached_property
    def _stages(self) -> list[Any]:
        t = photo_transforms()
        how = t.InterpolationMode(check_choice("interpolation", self.interpolation, _interpolations(t)))
        if self.crop is not None:
            stages = [t.RandomResizedCrop(self.size, scale=self.crop, interpolation=how)]
        else:
            short = math.floor(self.size / self.crop_pct)
            stages = [_without_ends, t.Resize(short, interpolation=how), t.CenterCrop(self.size)]
        if self.color:
            stages.append(t.ColorJitter(self.color, self.color, self.color))
        if self.policy is not None:
            stages.append(partial(_in_colour, augmentation_policy(self.policy, self.mean)))
        return stages


def _without_ends(image: Any) -> Any:
    """The middle of a very long image, of which only a square is framed: all of it, resized, has no bound."""
    width, height = image.size
    short = min(width, height)
    # an even number of pixels is cut off, so that the middle stays where it is
    across, down = (min(n, LONGEST * short + (n - LONGEST * short) % 2) for n in (width, height))
    if (across, down) == (width, height):
        return image
    left, top = (width - across) // 2, (height - down) // 2
    return image.crop((left, top, left + across, top + down))


def _interpolations(transforms: Any) -> list[str]:
    return [mode.value for mode in transforms.InterpolationMode]


def _in_colour(policy: Any, image: Any) -> Any:
    """Apply a policy, whose operations and fill are those of colour images, also to a grey one."""
    return policy(image.convert("RGB")).convert(image.mode)


@dataclass(frozen=True)
class Preparation:
    """How stored images become a network's input.

    Attributes:
        size: side of the square output, in pixels.
        mean: per channel, of images in [0, 1].
        std: per channel, likewise.
        photo: framing and colours, image by image; None resizes images that are in memory as they are.
        jitter: movements, all images at once; None while evaluating.
        replace: take the next image in place of one that cannot be read, so that a batch stays full.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    photo: Photo | None = None
    jitter: Jitter | None = None
    replace: bool = False

    def __call__(self, images: Images, indices: Sequence[int], seed: int = 0) -> Batch:
        """Read and prepare images; how an image varies follows from `seed` and its index alone."""
        if self.photo is None and isinstance(images, TensorImages):
            indices, skipped = list(indices), []
            pixels, labels = images.pixels[indices], images.labels[indices]
        else:
            pixels, labels, indices, skipped = self._open_all(images, indices, seed)
        prepared = pixels.float() / 255
        size = (self.size, self.size)
        if len(prepared) and prepared.shape[-2:] != size:
            prepared = F.interpolate(prepared, size, mode="bilinear", antialias=True).clamp_(0, 1)
        if self.jitter is not None and len(prepared):
            prepared = self.jitter(prepared, uniforms(seed, indices, _DRAWS))
        mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (self.mean, self.std))
        return Batch((prepared - mean) / std, labels, torch.tensor(indices).long(), skipped)

    def _open_all(
        self, images: Images, indices: Sequence[int], seed: int
    ) -> tuple[torch.Tensor, torch.Tensor, list[int], list[str]]:
        photo = self.photo or Photo(self.size)
        to_tensor = photo_transforms().PILToTensor()
        pixels, labels, read, skipped = [], [], [], list[str]()
        for index, (image, label) in open_each(images, indices, replace=self.replace, skipped=skipped):
            pixels.append(to_tensor(photo(image, derive_seed(seed, "photo", index))))
            labels.append(label)
            read.append(index)
        empty = torch.empty(0, len(self.mean), self.size, self.size, dtype=torch.uint8)
        return torch.stack(pixels) if pixels else empty, torch.tensor(labels).long(), read, skipped
