"""Volumes in NIfTI files, in and out: voxels, and where they lie in space."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qna._core.errors import InvalidInput, require
from qna._core.files import write_whole

SUFFIXES = (".nii.gz", ".nii")
# parts of a voxel by which the corners of two grids may differ that are meant to be one
_APART = 0.05
_PURPOSE = "NIfTI files"


class UnreadableVolume(InvalidInput):
    """A file does not hold a volume that can be used; the text is its name and the cause."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxels of a volume lie.

    Attributes:
        shape: voxels per axis, (D, H, W) as they are stored.
        affine: float64 (4, 4), from voxels to millimetres.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres from voxel to voxel along each axis."""
        lengths = np.sqrt((self.affine[:3, :3] ** 2).sum(0))
        return tuple(map(float, lengths))  # pyright: ignore[reportReturnType]

    @property
    def voxel_ml(self) -> float:
        """Millilitres of a voxel."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000

    @property
    def sideways(self) -> int:
        """The axis that runs nearest to left and right."""
        return int((np.abs(self.affine[0, :3]) / np.array(self.spacing)).argmax())

    def shifted(self, start: Sequence[float]) -> np.ndarray:
        """The affine of a part that begins at voxel `start`."""
        affine = self.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ np.asarray(start, dtype=np.float64)
        return affine

    def same_place(self, other: Grid) -> bool:
        """Whether both have the same voxels, within a twentieth of one at every corner."""
        if self.shape != other.shape:
            return False
        corners = np.array(np.meshgrid(*((0, n) for n in self.shape), [1], indexing="ij")).reshape(4, -1)
        apart = np.abs((self.affine - other.affine) @ corners)[:3]
        return bool(apart.max() <= _APART * min(self.spacing))


@dataclass(frozen=True, eq=False)
class Volume:
    """What a file, or one for each channel, holds.

    Attributes:
        voxels: float32 (C, D, H, W).
        grid: where they lie.
    """

    voxels: np.ndarray
    grid: Grid


def read_volume(paths: Sequence[Path]) -> Volume:
    """Read a volume from one file, of three axes or of four with the channels last, or from one per channel.

    Raises:
        MissingExtra: nibabel is not installed.
        UnreadableVolume: a file is damaged, its affine is not one, channels lie elsewhere than the first, or
            a voxel is NaN or infinite.
    """
    channels, grid = list[np.ndarray](), None
    for path in paths:
        image = _opened(path)
        own = _grid(path, image)
        if grid is None:
            grid = own
        elif not grid.same_place(own):
            raise UnreadableVolume(f"{path} lies elsewhere than {paths[0]}: {_apart(own, grid)}")
        voxels = _values(path, image).astype(np.float32)
        wrong = int((~np.isfinite(voxels)).sum())
        if wrong:
            raise UnreadableVolume(
                f"{path} holds {wrong:,} of {voxels.size:,} voxels that are NaN or infinite: replace them by "
                "numbers first, by numpy.nan_to_num for example"
            )
        channels += [voxels] if voxels.ndim == 3 else list(np.moveaxis(voxels, -1, 0))
    assert grid is not None
    return Volume(np.stack(channels), grid)


def read_labels(path: Path) -> tuple[np.ndarray, Grid]:
    """The class of every voxel, uint8 (D, H, W), and where they lie.

    Raises:
        UnreadableVolume: as `read_volume`, or the numbers are not whole ones from 0 to 255.
    """
    image = _opened(path)
    grid, values = _grid(path, image), _values(path, image)
    if values.ndim == 4:
        raise UnreadableVolume(f"{path} has {values.shape[3]} channels, and labels have one number a voxel")
    classes = np.nan_to_num(values, nan=-1, posinf=-1, neginf=-1).astype(np.int64)
    if not (np.array_equal(classes, values) and classes.min() >= 0 and classes.max() <= 255):
        odd = values[(classes != values) | (classes < 0) | (classes > 255)].flat[0]
        raise UnreadableVolume(f"{path} holds {odd:g}, and labels are whole numbers from 0 to 255")
    return classes.astype(np.uint8), grid


def write_labels(path: Path, classes: np.ndarray, grid: Grid) -> None:
    """Write the class of every voxel, uint8 (D, H, W), where the volume lies; whole or not at all.

    Raises:
        OSError: from writing.
    """
    nibabel = require("nibabel", extra="volumes", purpose=_PURPOSE)
    image = nibabel.Nifti1Image(np.ascontiguousarray(classes, dtype=np.uint8), grid.affine)
    # some readers ask for the one, some for the other
    image.set_sform(grid.affine, code="scanner")
    image.set_qform(grid.affine, code="scanner")
    image.header.set_xyzt_units("mm")
    content = image.to_bytes()
    if path.name.endswith(".gz"):
        content = gzip.compress(content, mtime=0)
    write_whole(path, lambda temporary: temporary.write_bytes(content))


def _opened(path: Path) -> Any:
    nibabel = require("nibabel", extra="volumes", purpose=_PURPOSE)
    try:
        return nibabel.load(path)
    except FileNotFoundError:
        raise UnreadableVolume(f"there is no file {path}") from None
    except Exception as error:  # damaged headers raise nearly anything
        raise UnreadableVolume(f"{path} is no NIfTI file that can be read: {_cause(error)}") from None


def _values(path: Path, image: Any) -> np.ndarray:
    try:
        values = np.asanyarray(image.dataobj)
    except Exception as error:  # and so do damaged voxels
        raise UnreadableVolume(f"the voxels of {path} cannot be read: {_cause(error)}") from None
    if values.dtype.names is not None or np.iscomplexobj(values):
        raise UnreadableVolume(f"{path} holds {values.dtype}, and voxels must be real numbers")
    return values.reshape(_axes(path, image))


def _axes(path: Path, image: Any) -> tuple[int, ...]:
    """Three axes, or four with several channels."""
    shape = tuple(map(int, image.shape))
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (3, 4) or 0 in shape:
        raise UnreadableVolume(
            f"{path} has the shape {tuple(image.shape)}, and a volume has three axes, or four with its "
            "channels last"
        )
    return shape


def _grid(path: Path, image: Any) -> Grid:
    affine = np.asarray(image.affine, dtype=np.float64)
    turn = affine[:3, :3]
    lengths = np.sqrt((turn**2).sum(0))
    if not np.isfinite(affine).all() or lengths.min() <= 0:
        raise UnreadableVolume(_wrong_affine(path, f"its axes are {_numbers(lengths)} mm a voxel"))
    if abs(np.linalg.det(turn / lengths)) < 1e-3:
        raise UnreadableVolume(_wrong_affine(path, "two of its axes run along each other"))
    return Grid(_axes(path, image)[:3], affine)  # pyright: ignore[reportArgumentType]


def _wrong_affine(path: Path, why: str) -> str:
    way = "set it anew, by nibabel.Nifti1Image(voxels, affine) for example"
    return f"the affine of {path} is wrong: {why}; {way}"


def _apart(own: Grid, other: Grid) -> str:
    """What two grids differ in."""
    if own.shape != other.shape:
        return f"{_by(own.shape)} voxels in the place of {_by(other.shape)}"
    here, there = (grid.affine[:3].round(4).tolist() for grid in (own, other))
    return f"its affine is {here} in the place of {there}"


def require_same_place(labels: Path, own: Grid, image: Path, grid: Grid) -> None:
    """Raise `UnreadableVolume` where labels do not lie where their image does."""
    if not own.same_place(grid):
        raise UnreadableVolume(
            f"the labels {labels} lie elsewhere than their image {image}: {_apart(own, grid)}; resample them "
            "to the image's voxels"
        )


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _numbers(values: np.ndarray) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _cause(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
