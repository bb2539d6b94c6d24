"""Classification of images: cross entropy, top-1 accuracy and the confusion matrix."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna.data import (
    Batch,
    FileImages,
    ImageData,
    Images,
    Jitter,
    Photo,
    Preparation,
    TensorImages,
    TrainingOrder,
    evaluation_batches,
    load_data,
    training_batches,
)
from qna.eval import Scores, Tally
from qna.train.config import NetworkOptions, TrainConfig
from qna.train.mixing import BatchMixer
from qna.train.network import create_network, prepare_network, try_network
from qna.train.task import Headline


class Classification:
    """Says which of several classes an image belongs to."""

    headline = Headline("top1", ".2%")
    config: TrainConfig
    classes: tuple[str, ...]
    mixer: BatchMixer

    def load(self, config: TrainConfig) -> ImageData:
        """The images that the configuration names."""
        images = config.images
        data = load_data(images.data, images.data_dir, download=images.download)
        self.config, self.classes = config, data.classes
        self.mixer = BatchMixer(config.augment, len(data.classes))
        return data

    def build_network(self, options: NetworkOptions, data: ImageData) -> nn.Module:
        """The classifier."""
        size = self.config.images.image_size
        return build_classifier(options, classes=len(data.classes), channels=data.channels, image_size=size)

    def fingerprint(self, data: ImageData) -> dict[str, Any]:
        """Classes, and number and digest of the images of both parts."""
        parts = {"training images": data.train, "held-out images": data.held_out}
        counts: dict[str, Any] = {name: len(images) for name, images in parts.items()}
        digests = {f"order or contents of the {name}": _digest(images) for name, images in parts.items()}
        return counts | {"classes": list(data.classes)} | digests

    def about(self, data: ImageData) -> dict[str, Any]:
        """What it takes to read an image and to name what is on it."""
        whole = isinstance(data.held_out, TensorImages)  # as `plain_view` frames them
        return {
            "config": json.loads(self.config.to_json()),
            "classes": data.classes,
            "mean": data.mean,
            "std": data.std,
            "crop_pct": 1.0 if whole else self.config.images.crop_pct,
            "interpolation": "bilinear" if whole else "bicubic",
        }

    def training_batches(
        self, data: ImageData, order: TrainingOrder, epoch: int, start: int
    ) -> Iterator[Batch]:
        """Images as the augmentation varies them."""
        view, workers = training_view(self.config, data), self.config.images.workers
        return training_batches(data.train, view, order, epoch=epoch, start=start, workers=workers)

    def held_out_batches(self, data: ImageData, rank: int, world: int) -> Iterator[Batch]:
        """Images as they are judged."""
        size, workers = self.config.optim.batch_size, self.config.images.workers
        view = plain_view(self.config, data)
        return evaluation_batches(data.held_out, view, size, rank=rank, world=world, workers=workers)

    def examples(self, batch: Batch) -> int:
        """Images that could be read."""
        return len(batch.labels)

    def unreadable(self, batch: Batch) -> list[str]:
        """A line on each image that could not."""
        return batch.skipped

    def varied(self, batch: Batch, seed: int) -> Batch:
        """Erased, and mixed by mixup or CutMix."""
        images, targets = self.mixer(batch.images, batch.labels, seed)
        return batch._replace(images=images, labels=targets)

    def inputs(self, batch: Batch) -> tuple[Tensor]:
        """The images (B, C, H, W)."""
        return (batch.images,)

    def loss(self, output: Tensor, batch: Batch, seed: int) -> Tensor:
        """Cross entropy, with smoothed targets; of a head on every position, the mean over them.

        Args:
            output: logits (B, classes), or (B, *positions, classes), each told the label of its image.
            batch: images and labels.
            seed: nothing is drawn.
        """
        smoothing = 0.0 if self.mixer.smooths else self.config.augment.smoothing
        labels = batch.labels.to(output.device).repeat_interleave(math.prod(output.shape[1:-1]), 0)
        return F.cross_entropy(output.flatten(0, -2).float(), labels, label_smoothing=smoothing)

    def tally(self, device: torch.device | str) -> ClassTally:
        """Counts images per true and predicted class."""
        return ClassTally(len(self.classes), device)

    def report(self, scores: Scores) -> dict[str, Any]:
        """Accuracy, loss and confusion."""
        return {
            "held_out": scores.images,
            "right": scores.right,
            "top1": scores.top1,
            "top5": scores.top5,
            "loss": scores.loss,
            "confusion": scores.confusion,
            "classes": self.classes,
        }


def build_classifier(options: NetworkOptions, *, classes: int, channels: int, image_size: int) -> nn.Module:
    """Return the network: (B, channels, image_size, image_size) -> (B, classes).

    Raises:
        UnknownName: for a model that timm does not know, or a part to freeze that the network does not have,
            with the nearest names.
        InvalidInput: if the model refuses the options, or the weights are of another network.
    """
    network = create_network(options, classes=classes, channels=channels, image_size=image_size)
    network = prepare_network(network, options)
    try_network(network, options.model, channels, (image_size, image_size))
    return network


class ClassTally:
    """Counts logits against the labels of batches.

    Args:
        classes: number of classes.
        device: where the logits are.
    """

    def __init__(self, classes: int, device: torch.device | str):
        self.counted = Tally(classes, device)

    def add(self, output: Tensor, batch: Batch) -> None:
        """Count a batch."""
        self.counted.add(output, batch.labels.to(output.device))

    def reduce(self, summed: Callable[[Tensor], Tensor], gathered: Callable[[list], list]) -> None:
        """Sum over all processes."""
        self.counted.confusion = summed(self.counted.confusion)
        self.counted.sums = summed(self.counted.sums)

    def scores(self) -> Scores:
        """Of everything counted."""
        return self.counted.scores()


def training_view(config: TrainConfig, data: ImageData) -> Preparation:
    """How images are prepared to be trained on."""
    a, size = config.augment, config.images.image_size
    photo = None
    if a.crop is not None or a.color or a.policy is not None or not isinstance(data.train, TensorImages):
        crop_pct = 1.0 if isinstance(data.train, TensorImages) else config.images.crop_pct
        photo = Photo(size, crop_pct, a.crop, a.color, a.policy, data.mean)
    jitter = Jitter(a.rotate, a.shift, a.zoom, a.flip)
    return Preparation(size, data.mean, data.std, photo, jitter, replace=True)


def plain_view(config: TrainConfig, data: ImageData) -> Preparation:
    """How images are prepared to be judged."""
    size = config.images.image_size
    photo = None if isinstance(data.held_out, TensorImages) else Photo(size, config.images.crop_pct)
    return Preparation(size, data.mean, data.std, photo)


def _digest(images: Images) -> str:
    """Of pixels and labels in memory; of files only names and labels, for reading all would take too long."""
    digest = hashlib.blake2b(digest_size=8)
    if isinstance(images, TensorImages):
        digest.update(images.pixels.contiguous().numpy().data)
        digest.update(images.labels.contiguous().numpy().data)
    elif isinstance(images, FileImages) and len(images):
        names = list(images.names)
        # a folder may be moved as a whole
        start = len(os.path.commonpath([names[0], names[-1]]))
        for name, label in zip(names, images.labels, strict=True):
            digest.update(f"{name[start:]}\0{label}\0".encode())
    return digest.hexdigest()
