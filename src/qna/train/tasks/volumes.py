"""Segmentation of volumes: a class for every voxel, cross entropy and Dice, recall by size."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core.errors import InvalidInput, require
from qna.data import TrainingOrder, evaluation_batches, training_batches
from qna.data.volumes import (
    PatchPreparation,
    VolumeBatch,
    VolumeData,
    load_lesions,
    load_mni152,
    load_volume_folder,
    whole,
)
from qna.eval.lesions import VolumeScores, VolumeTally
from qna.models.volumes import SlidingWindows, create_volume_network
from qna.train.config import NetworkOptions, TrainConfig, VolumeOptions
from qna.train.network import common_arguments, prepare_network, refuse_adapter
from qna.train.task import Headline


class SegmentedVolumes:
    """Says of every voxel which of several classes it shows.

    The loss is MONAI's `DiceCELoss`: the cross entropy, mean over the voxels, plus a weight times the Dice
    loss of the classes but number 0, mean over them. Of probabilities p and truth t over all voxels of a
    batch::

        1 - (2 sum p t + 1) / (sum p^2 + sum t^2 + 1)

    It is AGUNet's (Bouget et al., Front. Radiol. 2021) but for its sum over the classes: theirs has the
    background in it, divides by one class fewer and cuts what is below 0, so that of two classes it is flat
    where the background is nearly right.

    A network's supervised logits of other sizes are judged by the labels at that size, by nearest neighbour.

    Training sees patches; held-out volumes are judged whole, in windows that overlap.
    """

    headline = Headline("mean_dice", ".2%")
    config: TrainConfig
    data: VolumeData
    criterion: nn.Module

    def load(self, config: TrainConfig) -> VolumeData:
        """The data set that the configuration names."""
        losses = require("monai.losses", extra="volumes", purpose="the task volumes")
        self.config, own = config, config.volumes
        self.data = load_volumes(config)
        if config.augment.flip and self.data.mirrored:
            raise InvalidInput(
                f"flip would train on what is held out: the volumes of {self.data.name} held out are mirror "
                "images of those to train on; leave it out"
            )
        self.criterion = losses.DiceCELoss(
            include_background=False,
            to_onehot_y=True,
            softmax=True,
            squared_pred=True,
            smooth_nr=1.0,
            smooth_dr=1.0,
            batch=True,
            lambda_dice=own.dice_weight,
            label_smoothing=config.augment.smoothing,
        )
        return self.data

    def build_network(self, options: NetworkOptions, data: VolumeData) -> nn.Module:
        """A network of volumes, in windows when it is judged."""
        network = build_volume_network(
            options, self.config.volumes, classes=len(data.classes), channels=data.channels
        )
        return prepare_network(network, options)

    def fingerprint(self, data: VolumeData) -> dict[str, Any]:
        """Classes, channels, and number and digest of the volumes of both parts."""
        parts = {"volumes to train on": data.train.volumes, "held-out volumes": data.held_out}
        counts: dict[str, Any] = {name: len(volumes) for name, volumes in parts.items()}
        digests = {f"order or contents of the {name}": volumes.digest for name, volumes in parts.items()}
        return counts | {"classes": list(data.classes), "channels": data.channels} | digests

    def about(self, data: VolumeData) -> dict[str, Any]:
        """What it takes to show the network a volume, and to name what it says."""
        return {
            "config": json.loads(self.config.to_json()),
            "classes": data.classes,
            "channels": data.channels,
        }

    def training_batches(
        self, data: VolumeData, order: TrainingOrder, epoch: int, start: int
    ) -> Iterator[VolumeBatch]:
        """Patches, drawn by seed, epoch and number."""
        own, augment = self.config.volumes, self.config.augment
        longest = [max(axis) for axis in zip(*data.train.volumes.shapes, strict=True)]
        size = tuple(min(p, n) for p, n in zip(own.patch, longest, strict=True))
        view = PatchPreparation(size, own.foreground, augment.flip, augment.color)  # pyright: ignore[reportArgumentType]
        return training_batches(data.train, view, order, epoch=epoch, start=start)

    def held_out_batches(self, data: VolumeData, rank: int, world: int) -> Iterator[VolumeBatch]:
        """Whole volumes, each alone."""
        return evaluation_batches(data.held_out, whole, 1, rank=rank, world=world)

    def examples(self, batch: VolumeBatch) -> int:
        """Patches or volumes."""
        return len(batch.images)

    def unreadable(self, batch: VolumeBatch) -> list[str]:
        """None: all files were read before, and one that has gone since ends the run."""
        return []

    def varied(self, batch: VolumeBatch, seed: int) -> VolumeBatch:
        """As it is: patches were varied one by one."""
        return batch

    def inputs(self, batch: VolumeBatch) -> tuple[Tensor]:
        """The volumes (B, C, D, H, W)."""
        return (batch.images,)

    def loss(self, output: Tensor, batch: VolumeBatch, seed: int) -> Tensor:
        """Cross entropy and Dice."""
        labels = batch.labels[:, None].to(output.device)
        if output.shape[2:] != labels.shape[2:]:
            labels = F.interpolate(labels.float(), output.shape[2:], mode="nearest-exact").long()
        return self.criterion(output.float(), labels)

    def tally(self, device: torch.device | str) -> CountedVolumes:
        """Counts voxels and lesions of each volume."""
        return CountedVolumes(len(self.data.classes))

    def report(self, scores: VolumeScores) -> dict[str, Any]:
        """Dice, recall by size, loss."""
        return {
            "held_out": scores.volumes,
            "mean_dice": scores.mean_dice,
            "loss": scores.loss,
            "recall": scores.recall,
            "false_finds": scores.false_finds,
            "dice": scores.dice,
            "classes": self.data.classes[1:],
            "sizes": [{**vars(size), "recall": size.recall} for size in scores.sizes],
        }


def load_volumes(config: TrainConfig) -> VolumeData:
    """The data set that a configuration names: mni152, lesions, or a folder.

    Raises:
        InvalidInput: if it cannot be had.
    """
    name, own = config.images.data, config.volumes
    if name == "mni152":
        return load_mni152(voxel=own.voxel, patches=own.patches)
    if name == "lesions":
        return load_lesions(
            volumes=own.volumes_drawn,
            held_out=own.volumes_held_out,
            voxel=own.voxel,
            patches=own.patches,
            seed=own.draw_seed,
        )
    return load_volume_folder(Path(name), patches=own.patches)


def build_volume_network(
    options: NetworkOptions, own: VolumeOptions, *, classes: int, channels: int
) -> SlidingWindows:
    """The network that the options name: (B, channels, D, H, W) -> logits (B, classes, D, H, W).

    Raises:
        UnknownName: for a model that is not known, with the nearest names.
        InvalidInput: if it refuses the options.
    """
    refuse_adapter(options, "segmentation of volumes")
    network = create_volume_network(
        options.model, in_chans=channels, num_classes=classes, **common_arguments(options)
    )
    return SlidingWindows(network, own.patch, own.overlap)


class CountedVolumes:
    """Counts logits against the labels of batches.

    Args:
        classes: number of classes.
    """

    def __init__(self, classes: int):
        self.counted = VolumeTally(classes)

    def add(self, output: Tensor, batch: VolumeBatch) -> None:
        """Count a batch."""
        self.counted.add(output, batch.labels, batch.indices, batch.voxel_ml)

    def reduce(self, summed: Callable[[Tensor], Tensor], gathered: Callable[[list], list]) -> None:
        """Gather from all processes."""
        self.counted.reduce(gathered)

    def scores(self) -> VolumeScores:
        """Of everything counted."""
        return self.counted.scores()
