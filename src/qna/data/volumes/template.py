"""A brain without a download: the MNI152 template of nilearn's wheel, one hemisphere or the other."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from qna._core.errors import MissingExtra
from qna.data.volumes.labelled import Patches, VolumeData, VolumesInMemory, prepared
from qna.data.volumes.nifti import Grid, Volume, read_volume

_FILES = "datasets/data/mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
# what a map holds where it is sure
_SURE = 255.0
BRAIN = ("background", "grey matter", "white matter")
ORIGIN = (
    "the MNI152 T1 template, which is one brain, a mean of 152; its hemispheres are exact mirror images, so "
    "what is held out is the mirror image of what is trained on"
)


def read_template(voxel: int) -> Mapping[str, Volume]:
    """The maps "t1", "gm" and "wm" of the whole template, in [0, 1], in voxels of so many millimetres.

    Larger voxels are means of those of a millimetre; what does not fill one at the end is left out.

    Raises:
        MissingExtra: nilearn is not installed.
    """
    found = importlib.util.find_spec("nilearn")
    if found is None or found.origin is None:
        raise MissingExtra("the MNI152 template needs the package 'nilearn': pip install 'qna[volumes]'")
    folder = Path(found.origin).parent
    return {kind: _coarser(read_volume([folder / _FILES.format(kind)]), voxel) for kind in ("t1", "gm", "wm")}


def _coarser(volume: Volume, factor: int) -> Volume:
    d, h, w = shape = tuple(n // factor for n in volume.grid.shape)
    kept = volume.voxels[(slice(None), *(slice(n * factor) for n in shape))]
    cells = kept.reshape(1, *(k for n in shape for k in (n, factor)))
    affine = volume.grid.shifted([(factor - 1) / 2] * 3)
    affine[:3, :3] *= factor
    return Volume(cells.mean((2, 4, 6), dtype=np.float64).astype(np.float32) / _SURE, Grid((d, h, w), affine))


def tissues(template: Mapping[str, Volume]) -> np.ndarray:
    """The class of every voxel: 1 where grey matter has more than half of it, 2 where white has, else 0."""
    grey, white = template["gm"].voxels[0], template["wm"].voxels[0]
    return np.where(white > 0.5, 2, np.where(grey > 0.5, 1, 0)).astype(np.uint8)


def hemisphere(volume: Volume, side: str) -> Volume:
    """What lies left or right of the middle, cropped; the plane in the middle belongs to neither."""
    across = volume.grid.affine[0, 0] * np.arange(volume.grid.shape[0]) + volume.grid.affine[0, 3]
    # half a voxel from the middle still counts as in it
    half = abs(volume.grid.affine[0, 0]) / 2
    of_side = np.flatnonzero(across < -half if side == "left" else across > half)
    start, stop = int(of_side[0]), int(of_side[-1]) + 1
    part = np.ascontiguousarray(volume.voxels[:, start:stop])
    return Volume(part, Grid((stop - start, *volume.grid.shape[1:]), volume.grid.shifted((start, 0, 0))))


def load_mni152(*, voxel: int, patches: int) -> VolumeData:
    """Grey and white matter of the template: the left hemisphere to train on, the right one held out.

    Args:
        voxel: millimetres of a voxel.
        patches: of an epoch.
    """
    template = read_template(voxel)
    image = template["t1"]
    labelled = Volume(tissues(template)[None].astype(np.float32), image.grid)
    sides = []
    for side in ("left", "right"):
        classes = hemisphere(labelled, side).voxels[0].astype(np.uint8)
        volume = prepared(hemisphere(image, side), classes)
        sides.append(VolumesInMemory((f"{side} hemisphere",), (volume,), f"mni152 {voxel} mm {side}"))
    return VolumeData(
        "mni152", BRAIN, Patches(sides[0], patches), sides[1], channels=1, origin=ORIGIN, mirrored=True
    )
