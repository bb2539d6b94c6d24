"""A trained network that gives voxels their classes, with what it takes to show it a volume."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qna._core.errors import InvalidInput
from qna.data import evaluation_batches
from qna.data.volumes import (
    SUFFIXES,
    Grid,
    UnreadableVolume,
    Volume,
    VolumeData,
    named_volumes,
    read_volume,
    standardised,
    whole,
)
from qna.eval.classifier import NO_ANSWER
from qna.eval.dense import DenseNetwork
from qna.eval.judgement import UnusableAnswers
from qna.eval.lesions import VolumeScores, VolumeTally, usable_volume
from qna.models.volumes import SlidingWindows


@dataclass(frozen=True)
class VolumeSegmenter(DenseNetwork):
    """A network that says of every voxel what it shows.

    Attributes:
        network: `SlidingWindows`: (B, C, D, H, W) -> logits (B, classes, D, H, W), in evaluation mode.
        channels: of a volume.
        config: of the run that it is from.
    """

    network: SlidingWindows
    channels: int
    config: Any

    @property
    def architecture(self) -> str:
        """Name of the network."""
        return self.config.network.model

    def require_fit(self, data: VolumeData) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Check that it means the classes of `data`, and reads as many channels.

        Raises:
            InvalidInput: if it does not.
        """
        super().require_fit(data)
        require_channels(self, data.channels, data.name)


def require_channels(segmenter: VolumeSegmenter, channels: int, name: str) -> None:
    """Raise `InvalidInput` where a volume has not the channels that a network reads."""
    if channels != segmenter.channels:
        raise InvalidInput(
            f"{segmenter.name} reads volumes of {segmenter.channels} channels, and {name} has {channels}"
        )


@torch.no_grad()
def segment_volume(
    segmenter: VolumeSegmenter,
    volume: Volume,
    device: torch.device | str = "cpu",
    told: Callable[[int], object] | None = None,
) -> np.ndarray:
    """The class of every voxel of a volume of any size: uint8 (D, H, W).

    Args:
        segmenter: its network is on `device`.
        volume: as it was read.
        device: where to compute.
        told: called with 1 for each window that was seen; `SlidingWindows.windows` says how many there are.

    Raises:
        UnusableAnswers: if the network answers with NaN or infinity.
    """
    logits = answered(segmenter.network, standardised(volume.voxels)[None].to(device), told)
    if not usable_volume(logits):
        raise UnusableAnswers(NO_ANSWER)
    return logits[0].argmax(0).byte().cpu().numpy()


def answered(network: SlidingWindows, x: Tensor, told: Callable[[int], object] | None) -> Tensor:
    """Logits of a volume, while `told` counts windows."""
    before, network.told = network.told, told
    try:
        return network(x)  # pyright: ignore[reportReturnType]
    finally:
        network.told = before


@torch.no_grad()
def judge_volumes(
    segmenter: VolumeSegmenter,
    data: VolumeData,
    *,
    device: torch.device | str = "cpu",
    told: Callable[[int], object] = lambda windows: None,
) -> tuple[VolumeScores, Sequence[str]]:
    """Scores on all held-out volumes, each whole; the second is empty, for none of them was left out.

    Args:
        segmenter: its network is moved to `device` and put in evaluation mode.
        data: that it fits.
        device: where to compute.
        told: called with 1 after each volume.

    Raises:
        UnusableAnswers: if the network answers with NaN or infinity.
    """
    network, tally = segmenter.network.to(device).eval(), VolumeTally(len(data.classes))
    for batch in evaluation_batches(data.held_out, whole, 1):
        logits = network(batch.images.to(device))
        if not usable_volume(logits):
            raise UnusableAnswers(f"{segmenter.name}: {NO_ANSWER}")
        tally.add(logits, batch.labels, batch.indices, batch.voxel_ml)
        told(1)
    return tally.scores(), []


@dataclass(frozen=True)
class VolumePrediction:
    """What was seen in one volume.

    Attributes:
        path: of its first file, as it was found.
        files: all of them, one for each channel.
        name: of its labels, relative to the folder of labels.
        millilitres: of each class.
        error: why the volume could not be read, or the network's answer not be used.
    """

    path: str
    files: tuple[str, ...] = ()
    name: str = ""
    millilitres: tuple[float, ...] = ()
    error: str | None = None


def find_volumes(places: Iterable[str]) -> Iterator[VolumePrediction]:
    """A prediction without an answer for every volume in `places`, in order.

    Args:
        places: files, each a volume, and folders, searched with the folders inside for NIfTI files, of which
            those that are numbered as channels make one volume.
    """
    for place in places:
        path = Path(place)
        if not path.is_dir():
            suffix = next((s for s in SUFFIXES if path.name.lower().endswith(s)), path.suffix)
            name = f"{path.name[: len(path.name) - len(suffix)]}.nii.gz"
            yield VolumePrediction(place, (place,), name)
            continue
        try:
            found = named_volumes(path)
        except InvalidInput as error:
            yield VolumePrediction(place, error=str(error))
            continue
        for name, files in found.items():
            yield VolumePrediction(str(files[0]), tuple(map(str, files)), f"{name}.nii.gz")
        if not found:
            yield VolumePrediction(place, error=f"a folder without volumes ({', '.join(SUFFIXES)})")


def predict_volumes(
    segmenter: VolumeSegmenter,
    found: Iterable[VolumePrediction],
    write: Callable[[VolumePrediction, np.ndarray, Grid], object],
    *,
    device: torch.device | str = "cpu",
    begin: Callable[[str, int], Callable[[int], object]] = lambda name, windows: lambda more: None,
) -> Iterator[VolumePrediction]:
    """Answer entries in their order, one volume in memory at a time.

    Args:
        segmenter: its network is moved to `device` and put in evaluation mode.
        found: entries that have an error already are passed on.
        write: called with each answer, the class of every voxel and where they lie, before it is given.
        device: where to compute.
        begin: called with the name of a volume and the number of its windows, gives what counts them.
    """
    segmenter.network.to(device).eval()
    for entry in found:
        if entry.error is not None:
            yield entry
            continue
        try:
            volume = read_volume([Path(file) for file in entry.files])
            require_channels(segmenter, len(volume.voxels), entry.path)
            told = begin(entry.path, segmenter.network.windows(volume.grid.shape))
            classes = segment_volume(segmenter, volume, device, told)
        except (UnreadableVolume, InvalidInput) as error:
            yield replace(entry, error=str(error))
            continue
        counts = np.bincount(classes.reshape(-1), minlength=len(segmenter.classes))
        answer = replace(entry, millilitres=tuple((counts * volume.grid.voxel_ml).tolist()))
        write(answer, classes, volume.grid)
        yield answer
