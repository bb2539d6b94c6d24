"""Lesions of known sizes that a seed puts into the template, to see how small ones are found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from qna._core.seeds import derive_seed
from qna.data.volumes.labelled import Labelled, Patches, VolumeData, VolumesInMemory, prepared
from qna.data.volumes.nifti import Volume
from qna.data.volumes.template import ORIGIN, hemisphere, read_template

CLASSES = ("background", "lesion")


@dataclass(frozen=True)
class Lesions:
    """How lesions are drawn; each volume has some of its own in one hemisphere of the template.

    Attributes:
        smallest: millilitres of the smallest.
        largest: of the largest; logarithms are drawn evenly between both, so that every size is there.
        fewest: in a volume.
        most: in a volume; fewer where they find no place.
        faintest: how much brighter than its place the faintest is; all are in parts of the template's range.
        brightest: and the brightest.
        noise: standard deviation of what is added to every voxel of the brain.
        shading: largest relative change of brightness that runs smoothly over the volume.
    """

    smallest: float = 0.05
    largest: float = 15.0
    fewest: int = 2
    most: int = 5
    faintest: float = 0.15
    brightest: float = 0.5
    noise: float = 0.04
    shading: float = 0.15


def compose(template: Mapping[str, Volume], side: str, seed: int, drawn: Lesions) -> Labelled:
    """A hemisphere with lesions, all that is drawn following from `seed`.

    A lesion is the set of the voxels of the brain that are nearest to a drawn voxel, in an ellipsoid's metric
    that is bent by smooth noise: as many as its millilitres take, of which what hangs together with its
    middle is kept. Its brightness fades over the outermost voxel. Two lesions never touch.
    """
    image, grey, white = (hemisphere(template[kind], side) for kind in ("t1", "gm", "wm"))
    brain = (grey.voxels[0] + white.voxels[0]) > 0.5
    draw = np.random.default_rng(derive_seed(seed, "lesions", side))
    picture, free = image.voxels[0].astype(np.float64), brain.copy()
    classes = np.zeros(brain.shape, dtype=np.uint8)
    for _ in range(int(draw.integers(drawn.fewest, drawn.most + 1))):
        size = math.exp(draw.uniform(math.log(drawn.smallest), math.log(drawn.largest)))
        voxels = max(1, round(size / image.grid.voxel_ml))
        lesion = _shape(free, voxels, image.grid.spacing, draw)
        contrast = draw.uniform(drawn.faintest, drawn.brightest)
        if lesion is None:
            continue
        classes[lesion] = 1
        soft = ndimage.uniform_filter(lesion.astype(np.float64), 2)
        picture += contrast * np.where(brain, np.maximum(soft, 0.7 * lesion), 0)
        # what comes next keeps away by two voxels
        free &= ~np.asarray(ndimage.binary_dilation(lesion, iterations=2), dtype=bool)
    picture *= 1 + drawn.shading * _smooth(picture.shape, draw)
    picture += np.where(brain, draw.normal(0, drawn.noise, picture.shape), 0)
    return prepared(Volume(picture[None].astype(np.float32), image.grid), classes)


def _shape(
    free: np.ndarray, voxels: int, spacing: tuple[float, ...], draw: np.random.Generator
) -> np.ndarray | None:
    """Where a lesion of so many voxels lies; None where it finds no place."""
    places = np.flatnonzero(free)
    if len(places) < voxels:
        return None
    middle = np.unravel_index(int(places[draw.integers(len(places))]), free.shape)
    stretch, turn = draw.uniform(0.6, 1.6, 3), np.linalg.qr(draw.normal(size=(3, 3)))[0]
    # the smallest box that surely holds it, should the brain leave it half of its ball
    radius = 2.5 * (2 * voxels) ** (1 / 3)
    part = tuple(
        slice(max(0, int(m - radius)), min(n, int(m + radius) + 2))
        for m, n in zip(middle, free.shape, strict=True)
    )
    away = np.indices(tuple(p.stop - p.start for p in part), dtype=np.float64)
    away -= np.array([m - p.start for m, p in zip(middle, part, strict=True)]).reshape(3, 1, 1, 1)
    metric = (turn * stretch) @ turn.T
    distance = np.sqrt((np.tensordot(metric, away * np.reshape(spacing, (3, 1, 1, 1)), 1) ** 2).sum(0))
    distance *= 1 + 0.3 * _smooth(distance.shape, draw)
    distance[~free[part]] = np.inf
    if np.isfinite(distance).sum() < voxels:
        return None
    farthest = np.partition(distance.reshape(-1), voxels - 1)[voxels - 1]
    labelled: Any = ndimage.label(distance <= farthest)
    pieces = labelled[0]
    own = pieces[tuple(m - p.start for m, p in zip(middle, part, strict=True))]
    lesion = np.zeros_like(free)
    lesion[part] = pieces == own
    return lesion if own else None


def _smooth(shape: tuple[int, ...], draw: np.random.Generator) -> np.ndarray:
    """Noise in [-1, 1] that changes slowly: a grid of 3 x 3 x 3 numbers, between them linearly."""
    coarse = draw.uniform(-1, 1, (3, 3, 3))
    at = np.meshgrid(*(np.linspace(0, 2, n) for n in shape), indexing="ij", sparse=False)
    return ndimage.map_coordinates(coarse, at, order=1)


def load_lesions(
    *, volumes: int, held_out: int, voxel: int, patches: int, seed: int, drawn: Lesions | None = None
) -> VolumeData:
    """Volumes with lesions, those to train on in the left hemisphere and those held out in the right one.

    Args:
        volumes: to train on.
        held_out: to judge on.
        voxel: millimetres of a voxel.
        patches: of an epoch, a multiple of `volumes` or rounded up to one.
        seed: decides all that is drawn.
        drawn: how.
    """
    drawn, template = drawn or Lesions(), read_template(voxel)
    parts = []
    for side, count in (("left", volumes), ("right", held_out)):
        seeds = [derive_seed(seed, side, number) for number in range(count)]
        made = tuple(compose(template, side, own, drawn) for own in seeds)
        names = tuple(f"{side} hemisphere, lesions {number}" for number in range(count))
        digest = f"{drawn} {voxel} mm, seed {seed}, {count} of {side}"
        parts.append(VolumesInMemory(names, made, digest))
    return VolumeData(
        "lesions",
        CLASSES,
        Patches(parts[0], -(-patches // volumes)),
        parts[1],
        channels=1,
        origin=f"bright lesions drawn into {ORIGIN}; lesions, noise and shading differ",
        mirrored=True,
    )
