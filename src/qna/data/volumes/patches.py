"""From volumes to what a network reads: patches that seeds draw, or a volume whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from qna._core.seeds import derive_seed
from qna.data.volumes.labelled import Labelled, Patches, Volumes


class VolumeBatch(NamedTuple):
    """What a network reads in one go.

    Attributes:
        images: float32 (B, C, D, H, W), standardised.
        labels: class of each voxel, int64 (B, D, H, W).
        indices: position of each in its data set, int64 (B,).
        voxel_ml: millilitres of a voxel of each, float64 (B,).
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    voxel_ml: Tensor


@dataclass(frozen=True)
class PatchPreparation:
    """How patches are cut, and how they vary.

    A patch is one of two kinds. With probability `foreground` a class is drawn from those of its volume but
    number 0, all alike, and a voxel of it: the patch lies anywhere where it holds this voxel. Else, and where
    a volume has no such class, it lies anywhere in the volume. A volume that is shorter than a patch along an
    axis is filled up behind its end with 0, which is the mean of what is not background, and class 0.

    Attributes:
        size: voxels per axis.
        foreground: probability of the first kind.
        flip: mirror half of the patches left to right.
        color: largest relative change of contrast, and change of brightness in standard deviations.
    """

    size: tuple[int, int, int]
    foreground: float = 0.5
    flip: bool = False
    color: float = 0.0

    def __call__(self, patches: Patches, indices: Sequence[int], seed: int = 0) -> VolumeBatch:
        """Cut patches; where one lies and how it varies follows from `seed` and its index alone."""
        images, labels, volumes_ml = [], [], []
        for index in indices:
            volume = patches.volumes.open(index % len(patches.volumes))
            draw = np.random.default_rng(derive_seed(seed, "patch", index))
            image, classes = self._cut(volume, self.place(volume, draw))
            images.append(self._varied(image, draw))
            labels.append(classes)
            if self.flip and draw.random() < 0.5:
                axis = volume.grid.sideways
                images[-1], labels[-1] = images[-1].flip(axis + 1), classes.flip(axis)
            volumes_ml.append(volume.grid.voxel_ml)
        return VolumeBatch(
            torch.stack(images),
            torch.stack(labels),
            torch.tensor(indices),
            torch.tensor(volumes_ml, dtype=torch.float64),
        )

    def place(self, volume: Labelled, draw: np.random.Generator) -> tuple[int, ...]:
        """The patch's first voxel."""
        shape = volume.classes.shape
        if volume.places and draw.random() < self.foreground:
            classes = sorted(volume.places)
            places = volume.places[classes[int(draw.integers(len(classes)))]]
            voxel = np.unravel_index(int(places[draw.integers(len(places))]), shape)
            lows = [max(0, int(v) - p + 1) for v, p in zip(voxel, self.size, strict=True)]
            highs = [
                max(low, min(int(v), n - p))
                for low, v, n, p in zip(lows, voxel, shape, self.size, strict=True)
            ]
        else:
            lows, highs = [0] * 3, [max(0, n - p) for n, p in zip(shape, self.size, strict=True)]
        return tuple(int(draw.integers(low, high + 1)) for low, high in zip(lows, highs, strict=True))

    def _cut(self, volume: Labelled, start: Sequence[int]) -> tuple[Tensor, Tensor]:
        part = tuple(slice(s, s + p) for s, p in zip(start, self.size, strict=True))
        image, classes = volume.image[(slice(None), *part)], volume.classes[part].long()
        missing = [p - n for p, n in zip(self.size, classes.shape, strict=True)]
        behind = [m for axis in reversed(missing) for m in (0, axis)]
        return (F.pad(image, behind), F.pad(classes, behind)) if any(missing) else (image, classes)

    def _varied(self, image: Tensor, draw: np.random.Generator) -> Tensor:
        if not self.color:
            return image
        contrast, brightness = draw.uniform(-self.color, self.color, 2)
        return image * (1 + contrast) + brightness


def whole(volumes: Volumes, indices: Sequence[int], seed: int = 0) -> VolumeBatch:
    """Volumes as they are, one a batch: they differ in size."""
    (index,) = indices
    volume = volumes.open(index)
    return VolumeBatch(
        volume.image[None],
        volume.classes[None].long(),
        torch.tensor([index]),
        torch.tensor([volume.grid.voxel_ml], dtype=torch.float64),
    )
