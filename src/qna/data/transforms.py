"""From uint8 images to what a network reads: size, small movements while training, standardisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from qna._core.seeds import uniforms

# draws per image: angle, zoom, shift along each axis, mirror
_DRAWS = 5


@dataclass(frozen=True)
class Jitter:
    """Random movements of an image, all in one interpolation.

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
        if self == Jitter():
            return images
        signed = draws[:, :4] * 2 - 1
        angle = signed[:, 0] * math.radians(self.rotate)
        # a zoom by z and by 1/z are equally likely
        scale = torch.exp(signed[:, 1] * math.log1p(self.zoom))
        mirror = torch.where(draws[:, 4] < 0.5, -1.0, 1.0) if self.flip else torch.ones_like(scale)
        # grid coordinates run over [-1, 1], so a side is 2 long
        move = 2 * self.shift * signed[:, 2:4]
        cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
        theta = torch.stack(
            [
                torch.stack([cos * mirror, -sin, move[:, 0]], 1),
                torch.stack([sin * mirror, cos, move[:, 1]], 1),
            ],
            1,
        )
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, align_corners=False)


@dataclass(frozen=True)
class Preparation:
    """How stored images become a network's input.

    Attributes:
        size: side of the square output, in pixels.
        mean: per channel, of images in [0, 1].
        std: per channel, likewise.
        jitter: applied while training; None while evaluating.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    jitter: Jitter | None = None

    def __call__(self, pixels: torch.Tensor, seed: int, indices: Sequence[int]) -> torch.Tensor:
        """uint8 (B, C, H, W) -> float32 (B, C, size, size); the movement follows from (seed, index)."""
        images = pixels.float() / 255
        if images.shape[-2:] != (self.size, self.size):
            size = (self.size, self.size)
            images = F.interpolate(images, size, mode="bilinear", antialias=True).clamp_(0, 1)
        if self.jitter is not None:
            images = self.jitter(images, uniforms(seed, indices, _DRAWS))
        mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (self.mean, self.std))
        return (images - mean) / std
