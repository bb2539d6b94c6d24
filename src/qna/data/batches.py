"""Batches whose order and contents follow from (seed, epoch, position), never from a generator's state."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from qna._core.errors import InvalidInput
from qna._core.seeds import derive_seed
from qna.data.images.labelled import Images
from qna.data.images.transforms import Batch, Preparation


@dataclass(frozen=True)
class TrainingOrder:
    """The order in which `total` images are trained on.

    Attributes:
        total: images in the data set.
        batch_size: images per batch and process.
        seed: of the run.
        rank: this process.
        world: processes.
        group: batches per update; an epoch has a multiple of it.
    """

    total: int
    batch_size: int
    seed: int
    rank: int = 0
    world: int = 1
    group: int = 1

    def __post_init__(self):
        if len(self) == 0:
            raise InvalidInput(
                f"an update of {self.world} (processes) x {self.group} (batches) x {self.batch_size} images "
                f"needs more than the {self.total} training images; choose a smaller batch size"
            )

    def __len__(self) -> int:
        """Batches per epoch and process; what is left of the images, less than an update's, is left out."""
        return self.total // (self.batch_size * self.world * self.group) * self.group

    def epoch(self, epoch: int) -> list[list[int]]:
        """This process's batches of image indices."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
        order = torch.randperm(self.total, generator=generator)
        wide = order[: len(self) * self.world * self.batch_size].view(len(self), self.world, self.batch_size)
        return wide[:, self.rank].tolist()


def training_batches(
    images: Images,
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
    images: Images,
    prepare: Preparation,
    batch_size: int,
    *,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
) -> Iterator[Batch]:
    """Every readable image exactly once over all processes, in order; batches may differ in size."""
    mine = range(rank, len(images), world)
    plan = [list(mine[i : i + batch_size]) for i in range(0, len(mine), batch_size)]
    return iter(_loader(_View(images, prepare, seed=0), plan, workers))


class _View(Dataset):
    """Images as prepared for one epoch; fetched a batch at a time."""

    def __init__(self, images: Images, prepare: Preparation, seed: int):
        self.images, self.prepare, self.seed = images, prepare, seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: list[int]) -> Batch:
        return self.prepare(self.images, indices, self.seed)


def _loader(view: _View, plan: list[list[int]], workers: int) -> DataLoader:
    # a generator of its own: the global one is left alone
    return DataLoader(
        view,
        batch_sampler=plan,
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=_leave_signals_to_the_run,
        generator=torch.Generator(),
    )


def _leave_signals_to_the_run(_: int) -> None:
    # ctrl-c reaches the whole process group, and the update that is under way needs its images
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _as_it_is(batch: Any) -> Any:
    return batch
