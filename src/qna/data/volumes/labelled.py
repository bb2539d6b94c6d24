"""Volumes with a class for every voxel, in memory or in files, and the two parts of a data set of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from qna._core.errors import require
from qna.data.volumes.nifti import Grid, Volume, read_labels, read_volume

# bytes of volumes that are kept once they are read, in each process that reads
KEPT = 2**30


class Labelled(NamedTuple):
    """A volume ready for a network, with its labels.

    Attributes:
        image: float32 (C, D, H, W), standardised.
        classes: uint8 (D, H, W).
        grid: where the voxels lie.
        places: of each class but 0 that is there, its voxels' numbers in the flattened volume, int64.
    """

    image: Tensor
    classes: Tensor
    grid: Grid
    places: dict[int, np.ndarray]


def standardised(voxels: np.ndarray) -> Tensor:
    """Each channel less its mean over its deviation, of the voxels that are not 0, as MONAI does it.

    Voxels of exactly 0 stay: what was cut off around an organ is 0. A channel of one value alone becomes 0.
    """
    transforms = require("monai.transforms", extra="volumes", purpose="volumes")
    normalize = transforms.NormalizeIntensity(nonzero=True, channel_wise=True)
    return torch.as_tensor(np.asarray(normalize(torch.from_numpy(voxels)))).float()


def prepared(volume: Volume, classes: np.ndarray) -> Labelled:
    """A volume as networks see it."""
    flat = classes.reshape(-1)
    places = {int(n): np.flatnonzero(flat == n) for n in np.unique(flat) if n}
    return Labelled(standardised(volume.voxels), torch.from_numpy(classes), volume.grid, places)


class Volumes(Protocol):
    """Volumes that are opened one by one."""

    def __len__(self) -> int: ...

    def open(self, index: int) -> Labelled:
        """One of them."""
        ...

    def name(self, index: int) -> str:
        """What it is called."""
        ...

    @property
    def shapes(self) -> Sequence[tuple[int, int, int]]:
        """Voxels per axis of each."""
        ...

    @property
    def digest(self) -> str:
        """Of names and labels."""
        ...


@dataclass(frozen=True, eq=False)
class VolumesInMemory:
    """Volumes that were made.

    Attributes:
        names: of each.
        volumes: in the same order.
        digest: tells what they were made of.
    """

    names: tuple[str, ...]
    volumes: tuple[Labelled, ...] = field(repr=False)
    digest: str

    def __len__(self) -> int:
        return len(self.volumes)

    def open(self, index: int) -> Labelled:
        """One of them."""
        return self.volumes[index]

    def name(self, index: int) -> str:
        """What it is called."""
        return self.names[index]

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """Voxels per axis of each."""
        return [volume.grid.shape for volume in self.volumes]


@dataclass(frozen=True, eq=False)
class VolumesInFiles:
    """Volumes in NIfTI files; up to `KEPT` bytes of those read last stay in memory.

    Attributes:
        images: the files of each, one or one for each channel.
        labels: the file of each.
        shapes: voxels per axis of each.
        digest: of names and labels.
    """

    images: tuple[tuple[Path, ...], ...]
    labels: tuple[Path, ...]
    shapes: tuple[tuple[int, int, int], ...]
    digest: str
    _kept: OrderedDict[int, Labelled] = field(default_factory=OrderedDict, repr=False)

    def __len__(self) -> int:
        return len(self.images)

    def open(self, index: int) -> Labelled:
        """One of them.

        Raises:
            UnreadableVolume: it has become unreadable since it was first looked at.
        """
        if index not in self._kept:
            labels, _ = read_labels(self.labels[index])
            self._kept[index] = prepared(read_volume(self.images[index]), labels)
            while len(self._kept) > 1 and sum(map(_bytes, self._kept.values())) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(index)
        return self._kept[index]

    def name(self, index: int) -> str:
        """The first of its files."""
        return str(self.images[index][0])

    def __getstate__(self) -> dict[str, object]:
        # processes that prepare batches read for themselves
        return {**self.__dict__, "_kept": OrderedDict()}


def _bytes(volume: Labelled) -> int:
    return 4 * volume.image.numel() + volume.classes.numel() + sum(p.nbytes for p in volume.places.values())


@dataclass(frozen=True)
class Patches:
    """What is trained on in an epoch: so many patches of each volume.

    Attributes:
        volumes: which are cut.
        each: patches of a volume.
    """

    volumes: Volumes
    each: int

    def __len__(self) -> int:
        return len(self.volumes) * self.each


@dataclass(frozen=True)
class VolumeData:
    """A data set: volumes to train on, volumes held out, and what both share.

    Attributes:
        name: the name that it is chosen by.
        classes: names of the numbers in the labels, from 0 on; number 0 is what is none of the others.
        train: patches to train on.
        held_out: to judge on, whole; never trained on.
        channels: of every volume.
        origin: where the volumes came from, in a few words.
        mirrored: held-out volumes are mirror images of those to train on.
    """

    name: str
    classes: tuple[str, ...]
    train: Patches
    held_out: Volumes
    channels: int
    origin: str
    mirrored: bool = False
