"""How well classes of pixels are found: intersection over union, of regions and along their outlines."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# of the image's diagonal
OUTLINE = 0.02
# what is written where a pixel counts for no class
_NONE = -1


@dataclass(frozen=True)
class RegionScores:
    """What a network did on a set of images, counted in pixels of all of them together.

    A class that is neither there nor predicted has no intersection over union (None) and no part in the mean.

    Attributes:
        images: how many were judged.
        loss: mean cross entropy over the pixels, in nats.
        confusion: pixels per (true class, predicted class).
        outlines: per class, pixels in the intersection and in the union of both outlines.
    """

    images: int
    loss: float
    confusion: tuple[tuple[int, ...], ...]
    outlines: tuple[tuple[int, int], ...]

    @property
    def pixels(self) -> int:
        """Pixels that count."""
        return sum(map(sum, self.confusion))

    @property
    def accuracy(self) -> float:
        """Part of the pixels whose class is right."""
        return sum(row[i] for i, row in enumerate(self.confusion)) / max(self.pixels, 1)

    @property
    def iou(self) -> tuple[float | None, ...]:
        """Per class: pixels that are it and were found, over pixels that are it or were taken for it."""
        found = []
        for n, row in enumerate(self.confusion):
            union = sum(row) + sum(other[n] for other in self.confusion) - row[n]
            found.append(row[n] / union if union else None)
        return tuple(found)

    @property
    def boundary_iou(self) -> tuple[float | None, ...]:
        """Per class: the same of outlines (Cheng et al., "Boundary IoU", CVPR 2021, equation 1)."""
        return tuple(both / either if either else None for both, either in self.outlines)

    @property
    def miou(self) -> float:
        """Mean of `iou` over the classes that have one."""
        return _mean(self.iou)

    @property
    def boundary_miou(self) -> float:
        """Mean of `boundary_iou` over the classes that have one."""
        return _mean(self.boundary_iou)


def _mean(values: tuple[float | None, ...]) -> float:
    there = [value for value in values if value is not None]
    return sum(there) / max(len(there), 1)


class RegionTally:
    """Sums over batches; sums of several processes add up, in whole numbers but for the loss.

    Args:
        classes: number of classes.
        ignore: number of the pixels that count nowhere.
        device: where the logits are.
    """

    def __init__(self, classes: int, ignore: int, device: torch.device | str = "cpu"):
        self.classes, self.ignore = classes, ignore
        self.confusion = torch.zeros(classes, classes, dtype=torch.int64, device=device)
        # per class: intersection of outlines, true outline, predicted outline; one row more for the images
        self.outlines = torch.zeros(classes + 1, 3, dtype=torch.int64, device=device)
        # Apple's GPUs have no float64
        real = torch.float32 if torch.device(device).type == "mps" else torch.float64
        self.loss = torch.zeros(1, dtype=real, device=device)

    def add(self, logits: Tensor, masks: Tensor) -> None:
        """Count a batch: logits (B, classes, H, W), masks (B, H, W)."""
        logits, counts = logits.float(), masks != self.ignore
        truth = masks.masked_fill(~counts, _NONE)
        guess = logits.argmax(1).masked_fill(~counts, _NONE)
        pairs = truth[counts] * self.classes + guess[counts]
        self.confusion += torch.bincount(pairs, minlength=self.classes**2).view_as(self.confusion)
        # summed in double precision, so that the batches do not matter
        each = F.cross_entropy(logits, truth, ignore_index=_NONE, reduction="none")
        self.loss += each.to(self.loss.dtype).sum()
        on_truth, on_guess = outline(truth), outline(guess)
        both = on_truth & on_guess & (truth == guess)
        for column, (labels, where) in enumerate(((truth, both), (truth, on_truth), (guess, on_guess))):
            self.outlines[:-1, column] += torch.bincount(labels[where], minlength=self.classes)
        self.outlines[-1] += len(masks)

    def scores(self) -> RegionScores:
        """The scores of everything counted so far."""
        pixels = int(self.confusion.sum())
        return RegionScores(
            int(self.outlines[-1, 0]),
            float(self.loss) / max(pixels, 1),
            tuple(tuple(row) for row in self.confusion.tolist()),
            tuple((both, true + guess - both) for both, true, guess in self.outlines[:-1].tolist()),
        )


def outline(labels: Tensor) -> Tensor:
    """Where regions of one class end: pixels at most d away from another class, from -1, or from the edge.

    The distance is the larger of both axes'; d is 2 % of the image's diagonal, rounded, at least 1, as in
    the authors' code of Boundary IoU, which erodes each class's mask d times by 3 x 3 pixels. Here a maximum
    and a minimum over squares of 2 d + 1 pixels find all outlines at once: inside, both are the class.

    Args:
        labels: classes (B, H, W); -1 belongs to none and has no outline of its own.

    Returns:
        bool (B, H, W).
    """
    width = max(1, round(OUTLINE * math.hypot(*labels.shape[1:])))
    # classes are small whole numbers, which float32 holds exactly
    values = labels[:, None].float()
    around = F.pad(values, (width,) * 4, value=_NONE)
    largest, smallest = _largest(around, width), -_largest(-around, width)
    return ((largest != values) | (smallest != values))[:, 0] & (labels != _NONE)


def _largest(values: Tensor, width: int) -> Tensor:
    """Maximum over squares, an axis at a time."""
    return F.max_pool2d(F.max_pool2d(values, (2 * width + 1, 1), 1), (1, 2 * width + 1), 1)
