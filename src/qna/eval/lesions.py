"""How well classes of voxels are found: Dice, and recall of what hangs together, by its size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from qna._core.errors import require

# millilitres between which sizes are told apart
EDGES = (0.3, 1.0, 3.0, 10.0)
# part of a lesion's voxels from which on it counts as found
FOUND = 0.1
# voxels that share a corner hang together
_NEXT = np.ones((3, 3, 3), dtype=bool)


@dataclass(frozen=True)
class SizeRecall:
    """Lesions of one range of sizes: what hangs together of a class in the truth.

    Attributes:
        lowest: millilitres from which on they are counted here.
        below: up to which; None for any.
        there: lesions.
        found: those of which a tenth or more of the voxels were given their class.
    """

    lowest: float
    below: float | None
    there: int
    found: int

    @property
    def recall(self) -> float | None:
        """Part that was found; None where there are none."""
        return self.found / self.there if self.there else None

    @property
    def name(self) -> str:
        """The range in words."""
        return (
            f"{self.lowest:g} ml and more" if self.below is None else f"{self.lowest:g} to {self.below:g} ml"
        )


@dataclass(frozen=True)
class VolumeScores:
    """What a network did on a set of volumes.

    Attributes:
        volumes: how many were judged.
        loss: mean cross entropy of the voxels, in nats; a mean over volumes.
        dice: per class from number 1 on, ``2 |P T| / (|P| + |T|)``, a mean over the volumes in which the
            class is; None where it is in none.
        sizes: recall by size, of all classes from number 1 on.
        false_finds: what hangs together in the answers and meets no voxel of its class.
    """

    volumes: int
    loss: float
    dice: tuple[float | None, ...]
    sizes: tuple[SizeRecall, ...]
    false_finds: int

    @property
    def mean_dice(self) -> float:
        """Mean over the classes that are there; 0 where none is."""
        there = [value for value in self.dice if value is not None]
        return sum(there) / max(len(there), 1)

    @property
    def recall(self) -> float | None:
        """Of lesions of all sizes; None where there are none."""
        there = sum(size.there for size in self.sizes)
        return sum(size.found for size in self.sizes) / there if there else None


class VolumeTally:
    """What was counted of volumes, each by itself, so that sums do not depend on who counted.

    Args:
        classes: number of classes, number 0 included.
    """

    def __init__(self, classes: int):
        self.classes = classes
        # by volume: loss, Dice of each class (NaN where it is not), and numbers by size
        self.counted: list[tuple[int, float, tuple[float, ...], tuple[int, ...]]] = []

    def add(self, logits: Tensor, labels: Tensor, indices: Tensor, voxel_ml: Tensor) -> None:
        """Count volumes.

        Args:
            logits: (B, classes, D, H, W).
            labels: int64 (B, D, H, W).
            indices: numbers of the volumes.
            voxel_ml: millilitres of a voxel of each.
        """
        metrics = require("monai.metrics", extra="volumes", purpose="scores of volumes")
        labels = labels.to(logits.device)
        for answer, truth, index, ml in zip(logits, labels, indices.tolist(), voxel_ml.tolist(), strict=True):
            loss = float(F.cross_entropy(answer[None].float(), truth[None]))
            given = answer.argmax(0)
            dice = metrics.compute_dice(
                given[None, None], truth[None, None], include_background=False, num_classes=self.classes
            )
            numbers = count_lesions(given.cpu().numpy(), truth.cpu().numpy(), self.classes, ml)
            self.counted.append((index, loss, tuple(dice[0].tolist()), numbers))

    def reduce(self, gathered: Callable[[list], list]) -> None:
        """Take in what other processes counted."""
        self.counted = gathered(self.counted)

    def scores(self) -> VolumeScores:
        """Of everything counted."""
        rows = sorted(self.counted, key=lambda row: row[0])
        count = max(len(rows), 1)
        each = np.array([row[2] for row in rows]).reshape(-1, self.classes - 1)
        dice = tuple(
            float(np.mean(column[~np.isnan(column)])) if (~np.isnan(column)).any() else None
            for column in each.T
        )
        numbers = np.array([row[3] for row in rows], dtype=np.int64).reshape(-1, 2 * len(EDGES) + 3).sum(0)
        ranges = zip((0.0, *EDGES), (*EDGES, None), strict=True)
        sizes = tuple(
            SizeRecall(low, high, int(numbers[2 * n]), int(numbers[2 * n + 1]))
            for n, (low, high) in enumerate(ranges)
        )
        return VolumeScores(len(rows), sum(r[1] for r in rows) / count, dice, sizes, int(numbers[-1]))


def count_lesions(given: np.ndarray, truth: np.ndarray, classes: int, voxel_ml: float) -> tuple[int, ...]:
    """Lesions there and found, of each range of sizes in turn, and at the end what was found for nothing.

    Args:
        given: class of each voxel by the network, (D, H, W).
        truth: what it is.
        classes: number of classes.
        voxel_ml: millilitres of a voxel.
    """
    numbers = np.zeros(2 * len(EDGES) + 3, dtype=np.int64)
    for number in range(1, classes):
        there, answered = truth == number, given == number
        pieces, count = _pieces(there)
        if count:
            voxels = np.bincount(pieces.reshape(-1), minlength=count + 1)[1:]
            met = np.bincount(pieces[answered].reshape(-1), minlength=count + 1)[1:]
            sizes = np.searchsorted(EDGES, voxels * voxel_ml, side="right")
            np.add.at(numbers, 2 * sizes, 1)
            np.add.at(numbers, 2 * sizes[met >= FOUND * voxels] + 1, 1)
        finds, count = _pieces(answered)
        right = np.bincount(finds[there].reshape(-1), minlength=count + 1)[1:]
        numbers[-1] += int((right == 0).sum())
    return tuple(numbers.tolist())


def _pieces(where: np.ndarray) -> tuple[np.ndarray, int]:
    """The number of the piece that each voxel hangs together with, 0 for none, and how many there are."""
    found: Any = ndimage.label(where, structure=_NEXT)
    return found[0], int(found[1])


def usable_volume(logits: Tensor) -> bool:
    """Whether logits are numbers, a slice at a time: of a whole volume a mask would be as large again."""
    return all(bool(torch.isfinite(part).all()) for part in logits.unbind(2))
