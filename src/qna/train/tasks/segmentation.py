"""Segmentation of images: a class for every pixel, cross entropy and Dice, intersection over union."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core.errors import require
from qna.data import TrainingOrder, evaluation_batches, training_batches
from qna.data.masks import MaskBatch, MaskData, MaskPreparation, MaskVariation, load_masked_folder
from qna.eval.regions import RegionScores, RegionTally
from qna.eval.segmenter import full_size
from qna.models import create_segmenter
from qna.train.config import NetworkOptions, SegmentationOptions, TrainConfig, named_values
from qna.train.network import common_arguments, prepare_network, refuse_adapter, try_network
from qna.train.task import Headline


class Segmentation:
    """Says of every pixel which of several classes it shows.

    The loss is the cross entropy, mean over the pixels that count, plus a weight times the Dice loss
    (Milletari et al., "V-Net", 3DV 2016, as segmentation_models_pytorch has it): of each class over a batch
    1 - 2 |P T| / (|P| + |T|), from probabilities P and truth T; mean over the classes, those that are not
    there counted as 0.

    Held-out images are shown whole, one at a time, and scored at the size of their masks.
    """

    headline = Headline("miou", ".2%")
    config: TrainConfig
    data: MaskData
    dice: Callable[[Tensor, Tensor], Tensor]

    def load(self, config: TrainConfig) -> MaskData:
        """The folder that the configuration names."""
        smp = require("segmentation_models_pytorch", extra="dense", purpose="segmentation")
        self.config, ignore = config, config.segmentation.ignore
        self.data = load_masked_folder(Path(config.images.data), ignore=ignore)
        self.dice = smp.losses.DiceLoss("multiclass", ignore_index=ignore)
        return self.data

    def build_network(self, options: NetworkOptions, data: MaskData) -> nn.Module:
        """A model that segments by itself, or a backbone in a decoder."""
        network = build_segmenter(
            options, self.config.segmentation, classes=len(data.classes), channels=data.channels
        )
        network = prepare_network(network, options)
        size = self.config.images.image_size
        for shown in ((size, size), (size, size + size // 2 + 1)):  # held-out images have any shape
            try_network(network, options.model, data.channels, shown)
        return network

    def fingerprint(self, data: MaskData) -> dict[str, Any]:
        """Classes, and number and digest of the masks of both parts."""
        parts = {"training masks": data.train, "held-out masks": data.held_out}
        counts: dict[str, Any] = {name: len(files) for name, files in parts.items()}
        digests = {f"order or contents of the {name}": files.digest for name, files in parts.items()}
        return counts | {"classes": list(data.classes)} | digests

    def about(self, data: MaskData) -> dict[str, Any]:
        """What it takes to show the network an image, and to name and colour what it says."""
        return {
            "config": json.loads(self.config.to_json()),
            "classes": data.classes,
            "palette": data.palette,
            "mean": data.mean,
            "std": data.std,
        }

    def training_batches(
        self, data: MaskData, order: TrainingOrder, epoch: int, start: int
    ) -> Iterator[MaskBatch]:
        """Images and masks as the augmentation varies them together."""
        a, size = self.config.augment, self.config.images.image_size
        varied = MaskVariation(size, a.crop, a.rotate, a.shift, a.zoom, a.flip, a.color)
        view, workers = self._view(data, varied), self.config.images.workers
        return training_batches(data.train, view, order, epoch=epoch, start=start, workers=workers)

    def held_out_batches(self, data: MaskData, rank: int, world: int) -> Iterator[MaskBatch]:
        """Whole images, each alone: they differ in size, and none is to depend on another."""
        view, workers = self._view(data, None), self.config.images.workers
        return evaluation_batches(data.held_out, view, 1, rank=rank, world=world, workers=workers)

    def _view(self, data: MaskData, variation: MaskVariation | None) -> MaskPreparation:
        size = self.config.images.image_size
        return MaskPreparation(size, data.mean, data.std, data.ignore, variation)

    def examples(self, batch: MaskBatch) -> int:
        """Images that could be read."""
        return len(batch.masks)

    def unreadable(self, batch: MaskBatch) -> list[str]:
        """A line on each image that could not."""
        return batch.skipped

    def varied(self, batch: MaskBatch, seed: int) -> MaskBatch:
        """As it is: images and masks were varied one by one."""
        return batch

    def inputs(self, batch: MaskBatch) -> tuple[Tensor]:
        """The images (B, C, H, W)."""
        return (batch.images,)

    def loss(self, output: Tensor, batch: MaskBatch, seed: int) -> Tensor:
        """Cross entropy and Dice."""
        logits, masks = output.float(), batch.masks.to(output.device)
        smoothing, ignore = self.config.augment.smoothing, self.data.ignore
        each = F.cross_entropy(
            logits, masks, ignore_index=ignore, label_smoothing=smoothing, reduction="none"
        )
        # a batch in which no pixel counts teaches nothing; a mean over none would be NaN
        loss = each.sum() / (masks != ignore).sum().clamp_min(1)
        return loss + self.config.segmentation.dice * self.dice(logits, masks)

    def tally(self, device: torch.device | str) -> MaskTally:
        """Counts pixels per true and predicted class, and outlines."""
        return MaskTally(len(self.data.classes), self.data.ignore, device)

    def report(self, scores: RegionScores) -> dict[str, Any]:
        """Intersections over unions, accuracy, loss and confusion."""
        return {
            "held_out": scores.images,
            "miou": scores.miou,
            "boundary_miou": scores.boundary_miou,
            "pixel_accuracy": scores.accuracy,
            "loss": scores.loss,
            "iou": scores.iou,
            "boundary_iou": scores.boundary_iou,
            "confusion": scores.confusion,
            "classes": self.data.classes,
        }


def build_segmenter(
    options: NetworkOptions, own: SegmentationOptions, *, classes: int, channels: int
) -> nn.Module:
    """The network that the options name: (B, channels, H, W) -> logits (B, classes, H, W).

    Raises:
        UnknownName: for a model or decoder that is not known, with the nearest names.
        InvalidInput: if it refuses the options.
    """
    refuse_adapter(options, "segmentation")
    return create_segmenter(
        options.model,
        num_classes=classes,
        in_chans=channels,
        decoder=own.decoder,
        decoder_arguments=named_values(own.decoder_kwargs, "decoder_kwargs"),
        pretrained=options.pretrained,
        **common_arguments(options),
    )


class MaskTally:
    """Counts logits against the masks of batches, at the masks' size.

    Args:
        classes: number of classes.
        ignore: number of the pixels that count nowhere.
        device: where the logits are.
    """

    def __init__(self, classes: int, ignore: int, device: torch.device | str):
        self.counted = RegionTally(classes, ignore, device)

    def add(self, output: Tensor, batch: MaskBatch) -> None:
        """Count a batch."""
        self.counted.add(full_size(output, *batch.masks.shape[1:]), batch.masks.to(output.device))

    def reduce(self, summed: Callable[[Tensor], Tensor], gathered: Callable[[list], list]) -> None:
        """Sum over all processes."""
        counted = self.counted
        counted.confusion, counted.outlines, counted.loss = map(
            summed, (counted.confusion, counted.outlines, counted.loss)
        )

    def scores(self) -> RegionScores:
        """Of everything counted."""
        return self.counted.scores()
