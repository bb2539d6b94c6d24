"""Batches whose order and contents follow from (seed, epoch, position), never from a generator's state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from qna._core.errors import InvalidInput
from qna._core.seeds import derive_seed
from qna.data.images import TensorImages
from qna.data.transforms import Preparation


class Batch(NamedTuple):
    """What a network reads in one go.

    Attributes:
        images: float32 (B, C, H, W).
        labels: int64 (B,).
        indices: position of each image in its data set, int64 (B,).
    """

    images: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor


@dataclass(frozen=True)
class TrainingOrder:
    """The order in which `total` images are trained on.

    Attributes:
        total: images in the data set.
        batch_size: images per batch and process.
        seed: of the run.
        rank: this process.
        world: processes.
    """

    total: int
    batch_size: int
    seed: int
    rank: int = 0
    world: int = 1

    def __post_init__(self):
        if len(self) == 0:
            raise InvalidInput(
                f"a batch of {self.batch_size} images in each of {self.world} processes needs more than the "
                f"{self.total} training images; choose a smaller batch size"
            )

    def __len__(self) -> int:
        """Batches per epoch and process; the rest of an epoch smaller than one batch is left out."""
        return self.total // (self.batch_size * self.world)

    def epoch(self, epoch: int) -> list[list[int]]:
        """This process's batches of image indices."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
        order = torch.randperm(self.total, generator=generator)
        wide = order[: len(self) * self.world * self.batch_size].view(len(self), self.world, self.batch_size)
        return wide[:, self.rank].tolist()


def training_batches(
    images: TensorImages,
    prepare: Preparation,
    order: TrainingOrder,
    *,
    epoch: int,
    start: int = 0,
    workers: int = 0,
) -> Iterator[Batch]:
    """Batches of one epoch, from batch number `start` on."""
    view = _View(images, prepare, derive_seed(order.seed, "images", epoch))
    return iter(_loader(view, order.epoch(epoch)[start:], workers))


def evaluation_batches(
    images: TensorImages,
    prepare: Preparation,
    batch_size: int,
    *,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
) -> Iterator[Batch]:
    """Every image exactly once over all processes, in order; the last batch may be smaller."""
    mine = range(rank, len(images), world)
    plan = [list(mine[i : i + batch_size]) for i in range(0, len(mine), batch_size)]
    return iter(_loader(_View(images, prepare, seed=0), plan, workers))


class _View(Dataset):
    """Images as prepared for one epoch; fetched a batch at a time."""

    def __init__(self, images: TensorImages, prepare: Preparation, seed: int):
        self.images, self.prepare, self.seed = images, prepare, seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: list[int]) -> Batch:
        pixels = self.prepare(self.images.pixels[indices], self.seed, indices)
        return Batch(pixels, self.images.labels[indices], torch.tensor(indices))


def _loader(view: _View, plan: list[list[int]], workers: int) -> DataLoader:
    return DataLoader(view, batch_sampler=plan, num_workers=workers, collate_fn=_as_it_is)


def _as_it_is(batch: Any) -> Any:
    return batch
