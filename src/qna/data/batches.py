"""Batches whose order and contents follow from (seed, epoch, position), never from a generator's state."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from qna._core.errors import InvalidInput
from qna._core.seeds import derive_seed

Examples = TypeVar("Examples", bound=Sized)
Made = TypeVar("Made")
# (all examples, positions of some, seed) -> the batch of these; how one varies follows from seed and position
Prepare = Callable[[Examples, Sequence[int], int], Made]


@dataclass(frozen=True)
class TrainingOrder:
    """The order in which `total` examples are trained on.

    Attributes:
        total: examples in the data set.
        batch_size: examples per batch and process.
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
                f"an update of {self.world} (processes) x {self.group} (batches) x {self.batch_size} "
                f"examples needs more than the {self.total} to train on; choose a smaller batch size"
            )

    def __len__(self) -> int:
        """Batches per epoch and process; what is left of the examples, less than an update's, is left out."""
        return self.total // (self.batch_size * self.world * self.group) * self.group

    def epoch(self, epoch: int) -> list[list[int]]:
        """This process's batches of indices."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
        order = torch.randperm(self.total, generator=generator)
        wide = order[: len(self) * self.world * self.batch_size].view(len(self), self.world, self.batch_size)
        return wide[:, self.rank].tolist()


def training_batches(
    examples: Examples,
    prepare: Prepare[Examples, Made],
    order: TrainingOrder,
    *,
    epoch: int,
    start: int = 0,
    workers: int = 0,
) -> Iterator[Made]:
    """Batches of one epoch, from batch number `start` on."""
    # the word is in the seed of every run that is to go on
    view = _View(examples, prepare, derive_seed(order.seed, "images", epoch))
    return _loaded(view, order.epoch(epoch)[start:], workers)


def evaluation_batches(
    examples: Examples,
    prepare: Prepare[Examples, Made],
    batch_size: int,
    *,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
) -> Iterator[Made]:
    """Every readable example exactly once over all processes, in order; batches may differ in size."""
    mine = range(rank, len(examples), world)
    plan = [list(mine[i : i + batch_size]) for i in range(0, len(mine), batch_size)]
    return _loaded(_View(examples, prepare, seed=0), plan, workers)


class _View(Dataset, Generic[Examples, Made]):
    """Examples as prepared for one epoch; fetched a batch at a time."""

    def __init__(self, examples: Examples, prepare: Prepare[Examples, Made], seed: int):
        self.examples, self.prepare, self.seed = examples, prepare, seed

    def __len__(self) -> int:
        return len(self.examples)

    def __getitems__(self, indices: list[int]) -> Made:
        return self.prepare(self.examples, indices, self.seed)


def _loaded(view: _View[Any, Made], plan: list[list[int]], workers: int) -> Iterator[Made]:
    with warnings.catch_warnings():
        # torch's advice on their number, which is an option; no figure depends on it
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        # a generator of its own: the global one is left alone
        loader = DataLoader(
            view,
            batch_sampler=plan,
            num_workers=workers,
            collate_fn=_as_it_is,
            worker_init_fn=_leave_signals_to_the_run,
            generator=torch.Generator(),
        )
        return iter(loader)


def _leave_signals_to_the_run(_: int) -> None:
    # ctrl-c reaches the whole process group, and the update that is under way needs its batches
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _as_it_is(batch: Any) -> Any:
    return batch
