"""The user's own volumes in folders: images/ and labels/ of NIfTI files with equal names."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from qna._core.errors import InvalidInput
from qna._core.seeds import derive_seed
from qna.data.images.folder import HELD_OUT_NAMES, TRAIN_NAMES
from qna.data.masks.folder import HELD_OUT_ONE_IN, IMAGES, class_names
from qna.data.volumes.labelled import Patches, VolumeData, VolumesInFiles
from qna.data.volumes.nifti import SUFFIXES, read_labels, read_volume, require_same_place

LABELS = "labels"
# behind a name: the channel that the file holds
_CHANNEL = re.compile(r"_(\d{4})$")

Case = tuple[str, tuple[Path, ...], Path]


def named_volumes(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The NIfTI files in a folder and the folders inside, by the name of the volume that they make.

    NAME.nii.gz, or NAME.nii, is a volume. NAME_0000.nii.gz, NAME_0001.nii.gz and so on are the channels of
    one.

    Raises:
        InvalidInput: a folder cannot be searched, two files make the same volume, or a channel is missing.
    """
    found: dict[str, dict[int | None, Path]] = {}
    for place, inside, files in os.walk(folder, onerror=_refuse, followlinks=True):
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        for file in sorted(files):
            suffix = next((s for s in SUFFIXES if file.lower().endswith(s)), None)
            if suffix is None or file.startswith("."):
                continue
            path = Path(place) / file
            name = (path.relative_to(folder).parent / file[: -len(suffix)]).as_posix()
            number = _CHANNEL.search(name)
            channel = int(number[1]) if number else None
            name = name[: number.start()] if number else name
            if (other := found.setdefault(name, {}).get(channel)) is not None:
                raise InvalidInput(f"{other} and {path} have the same name but for the suffix")
            found[name][channel] = path
    return {name: _in_order(name, files) for name, files in sorted(found.items())}


def _in_order(name: str, files: Mapping[int | None, Path]) -> tuple[Path, ...]:
    if None in files:
        if len(files) > 1:
            raise InvalidInput(
                f"{files[None]} is a volume, and {len(files) - 1} more files name channels of {name}: keep "
                "one or the others"
            )
        return (files[None],)
    for channel in range(len(files)):
        if channel not in files:
            raise InvalidInput(
                f"volume {name} has {len(files)} channels and none is numbered {channel:04d}: "
                f"{next(iter(files.values()))} is one of them"
            )
    return tuple(files[channel] for channel in range(len(files)))


def load_volume_folder(root: Path, *, patches: int) -> VolumeData:
    """Return the volumes of ROOT/train and ROOT/val (or validation, valid, test) with their labels.

    A part has images/ and labels/. The labels of images/a/b.nii.gz are labels/a/b.nii.gz (.nii will do for
    either), whole numbers from 0 to 255 in the same voxels; an image has its channels in a fourth axis or in
    files b_0000.nii.gz, b_0001.nii.gz and so on. ROOT/classes.txt names the classes, one a line from number 0
    on, what is none of the others; without it they are called by their numbers.

    Where ROOT itself has images/ and labels/, every volume whose name hashes to 0 modulo 5 is held out.

    All files are read once, so that what is wrong with one is said before the training begins. Voxels are
    taken as they lie, whatever their spacing and orientation: nothing is resampled.

    Args:
        root: the folder.
        patches: of an epoch, rounded up to a multiple of the volumes.

    Raises:
        InvalidInput: if there is no such folder, a part of it is missing, a volume has no labels or labels no
            volume, they lie elsewhere, a file cannot be used, volumes differ in their channels, a label is no
            class, or there is nothing to train on.
    """
    parts = [_cases(part) for part in _parts(root)] if not (root / IMAGES).is_dir() else _split(root)
    for what, cases in zip(("train on", "hold out"), parts, strict=True):
        if not cases:
            raise InvalidInput(f"{root} has no volumes to {what}; it has {sum(map(len, parts))} in all")
    train, held_out = ([_looked_at(case) for case in cases] for cases in parts)
    counts = np.sum([look.counts for look in train], axis=0)
    if not counts[1:].any():
        raise InvalidInput(
            f"the labels to train on in {root} hold the number 0 alone: without a voxel of a class there is "
            "nothing to learn"
        )
    classes = class_names(root) or tuple(map(str, range(int(np.flatnonzero(counts)[-1]) + 1)))
    channels = train[0].channels
    for (_, images, labels), look in zip((*parts[0], *parts[1]), (*train, *held_out), strict=True):
        if look.channels != channels:
            raise InvalidInput(
                f"{images[0]} has {look.channels} channels, and {parts[0][0][1][0]} has {channels}: all "
                "volumes must have the same"
            )
        for number in np.flatnonzero(look.counts[len(classes) :]) + len(classes):
            raise InvalidInput(
                f"{labels} holds the number {number} in {look.counts[number]:,} voxels, which is none of "
                f"{len(classes)} classes (0 to {len(classes) - 1}); name more in classes.txt"
            )
    volumes = [_files(cases, looks) for cases, looks in zip(parts, (train, held_out), strict=True)]
    return VolumeData(
        str(root),
        classes,
        Patches(volumes[0], -(-patches // len(volumes[0]))),
        volumes[1],
        channels=channels,
        origin=f"volumes with labels in {root}",
    )


class _Look:
    """What is known of a volume that was read once."""

    def __init__(self, shape: tuple[int, int, int], channels: int, counts: np.ndarray, digest: bytes):
        self.shape, self.channels, self.counts, self.digest = shape, channels, counts, digest


def _looked_at(case: Case) -> _Look:
    name, images, labels = case
    volume = read_volume(images)
    classes, grid = read_labels(labels)
    require_same_place(labels, grid, images[0], volume.grid)
    digest = hashlib.blake2b(f"{name}\0{classes.shape}\0".encode(), digest_size=8)
    digest.update(classes.tobytes())
    counts = np.bincount(classes.reshape(-1), minlength=256)
    return _Look(volume.grid.shape, len(volume.voxels), counts, digest.digest())


def _files(cases: Sequence[Case], looks: Sequence[_Look]) -> VolumesInFiles:
    digest = hashlib.blake2b(b"".join(look.digest for look in looks), digest_size=8).hexdigest()
    return VolumesInFiles(
        tuple(images for _, images, _ in cases),
        tuple(labels for _, _, labels in cases),
        tuple(look.shape for look in looks),
        digest,
    )


def _parts(root: Path) -> list[Path]:
    found = []
    for names in (TRAIN_NAMES, HELD_OUT_NAMES):
        part = next((root / name for name in names if (root / name / IMAGES).is_dir()), None)
        if part is None:
            wanted = " or ".join(f"{name}/{IMAGES}" for name in names)
            raise InvalidInput(
                f"data {str(root)!r} was not found: looked for {wanted} in it, with {LABELS}/ beside; mni152 "
                "and lesions are data that need no files"
            )
        found.append(part)
    return found


def _split(root: Path) -> list[list[Case]]:
    parts: list[list[Case]] = [[], []]
    for case in _cases(root):
        parts[derive_seed("held out", case[0]) % HELD_OUT_ONE_IN == 0].append(case)
    return parts


def _cases(part: Path) -> list[Case]:
    """Name, images and labels of every volume in a part."""
    if not (part / LABELS).is_dir():
        raise InvalidInput(f"{part} has {IMAGES}/ and no {LABELS}/ beside")
    images, labels = named_volumes(part / IMAGES), named_volumes(part / LABELS)
    for name, files in images.items():
        if name not in labels:
            raise InvalidInput(f"{files[0]} has no labels: {part / LABELS / name}.nii.gz is not there")
    for name, files in labels.items():
        if name not in images:
            raise InvalidInput(f"{files[0]} are the labels of no volume in {part / IMAGES}")
        if len(files) > 1:
            raise InvalidInput(f"{files[1]} is a second file of labels of {name}: they have one")
    return [(name, files, labels[name][0]) for name, files in images.items()]


def _refuse(error: OSError) -> None:
    raise InvalidInput(f"the folder {error.filename} cannot be searched: {error.strerror}") from None
