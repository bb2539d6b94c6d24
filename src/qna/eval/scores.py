"""Accuracy, loss and the confusion matrix, each image counted once whatever the batches and processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from qna.data import Batch


@dataclass(frozen=True)
class Scores:
    """What a network did on a set of images.

    Attributes:
        images: how many were judged.
        top1: part whose label got the highest logit.
        top5: part whose label is among the five highest logits (or among all classes, if fewer).
        loss: mean cross entropy, in nats.
        confusion: images per (true class, predicted class).
    """

    images: int
    top1: float
    top5: float
    loss: float
    confusion: tuple[tuple[int, ...], ...]

    @property
    def right(self) -> int:
        """Images whose label got the highest logit."""
        return sum(row[i] for i, row in enumerate(self.confusion))


class Tally:
    """Sums over batches; sums of several processes add up.

    Args:
        classes: number of classes.
        device: where the logits are.
    """

    def __init__(self, classes: int, device: torch.device | str = "cpu"):
        self.confusion = torch.zeros(classes, classes, dtype=torch.int64, device=device)
        # (sum of losses, images with the label among the first five); Apple's GPUs have no float64
        real = torch.float32 if torch.device(device).type == "mps" else torch.float64
        self.sums = torch.zeros(2, dtype=real, device=device)

    def add(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Count a batch: logits (B, classes), labels (B,)."""
        logits, classes = logits.float(), len(self.confusion)
        predicted = logits.argmax(1)
        self.confusion += torch.bincount(labels * classes + predicted, minlength=classes**2).view_as(
            self.confusion
        )
        # summed in double precision, so that the batches do not matter
        self.sums[0] += F.cross_entropy(logits, labels, reduction="none").to(self.sums.dtype).sum()
        first = logits.topk(min(5, classes), dim=1).indices
        self.sums[1] += (first == labels[:, None]).sum()

    def scores(self) -> Scores:
        """The scores of everything counted so far."""
        images = int(self.confusion.sum())
        loss, top5 = (self.sums / max(images, 1)).tolist()
        confusion = tuple(tuple(row) for row in self.confusion.tolist())
        right = int(self.confusion.diagonal().sum())
        return Scores(images, right / max(images, 1), top5, loss, confusion)


@torch.no_grad()
def evaluate(
    network: nn.Module,
    batches: Iterable[Batch],
    classes: int,
    *,
    device: torch.device | str = "cpu",
    reduce: Callable[[torch.Tensor], torch.Tensor] | None = None,
    autocast: Callable[[], AbstractContextManager] = nullcontext,
) -> Scores:
    """Judge `network` in evaluation mode; its mode is put back afterwards.

    Args:
        network: (B, C, H, W) -> logits (B, classes).
        batches: each image of this process once.
        classes: number of classes.
        device: where the network is.
        reduce: sums a tensor over all processes; None for one process.
        autocast: gives the context of mixed precision.
    """
    tally = Tally(classes, device)
    training = network.training
    network.eval()
    try:
        for batch in batches:
            if not len(batch.labels):  # none of its images could be read
                continue
            with autocast():
                logits = network(batch.images.to(device))
            tally.add(logits, batch.labels.to(device))
    finally:
        network.train(training)
    if reduce is not None:
        tally.confusion, tally.sums = reduce(tally.confusion), reduce(tally.sums)
    return tally.scores()
