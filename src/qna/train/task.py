"""What a training run asks of a task; the loop knows no task by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from qna.data import TrainingOrder
from qna.train.config import NetworkOptions, TrainConfig


@dataclass(frozen=True)
class Headline:
    """The figure that says how good a network is.

    Attributes:
        name: in the report of the scores.
        form: how it is written, a format specification.
    """

    name: str
    form: str = ".4g"

    def text(self, value: float) -> str:
        """The figure in words."""
        return format(value, self.form)


class TaskData(Protocol):
    """What every data set of a task has; of the examples only their number matters to a run."""

    @property
    def name(self) -> str:
        """That it is chosen by."""
        ...

    @property
    def train(self) -> Sized:
        """Examples to train on."""
        ...

    @property
    def held_out(self) -> Sized:
        """Examples to judge on."""
        ...


class TaskTally(Protocol):
    """Sums, or whatever a task collects, over the batches that are judged."""

    def add(self, output: Any, batch: Any) -> None:
        """Count a batch of held-out examples, with the network's output for it."""
        ...

    def reduce(self, summed: Callable[[Tensor], Tensor], gathered: Callable[[list], list]) -> None:
        """Take in what other processes counted.

        Args:
            summed: gives the sum of a tensor over all processes.
            gathered: gives the items of a list in all processes.
        """
        ...

    def scores(self) -> Any:
        """What was counted, in the task's own type."""
        ...


class Task(Protocol):
    """What is learned: data, loss and scores. Batches are whatever the task makes them."""

    @property
    def headline(self) -> Headline:
        """Of its scores."""
        ...

    def load(self, config: TrainConfig) -> Any:
        """The data, a `TaskData`; called once and before all else, so the task may keep what it needs."""
        ...

    def build_network(self, options: NetworkOptions, data: Any) -> nn.Module:
        """The network that `options` name for the data, as a run begins with it: `qna.train.network`."""
        ...

    def fingerprint(self, data: Any) -> dict[str, Any]:
        """Facts on the data, JSON by name, that must be the same when a run goes on."""
        ...

    def about(self, data: Any) -> dict[str, Any]:
        """What a file of weights must say, as JSON, for the network to be used."""
        ...

    def training_batches(self, data: Any, order: TrainingOrder, epoch: int, start: int) -> Iterator[Any]:
        """This process's batches of an epoch, from batch number `start` on; the arguments decide all."""
        ...

    def held_out_batches(self, data: Any, rank: int, world: int) -> Iterator[Any]:
        """Every held-out example once over all processes."""
        ...

    def examples(self, batch: Any) -> int:
        """How many examples a batch has; its loss weighs as much."""
        ...

    def unreadable(self, batch: Any) -> list[str]:
        """A line on each example that belongs to the batch and could not be read."""
        ...

    def varied(self, batch: Any, seed: int) -> Any:
        """What a training batch is made before the network sees it; mixed, for example."""
        ...

    def inputs(self, batch: Any) -> tuple[Any, ...]:
        """What the network is called with, on the CPU."""
        ...

    def loss(self, output: Any, batch: Any, seed: int) -> Tensor:
        """The mean loss of a batch that `varied` gave; all that it draws follows from `seed`."""
        ...

    def tally(self, device: Any) -> TaskTally:
        """An empty tally for outputs on `device`."""
        ...

    def report(self, scores: Any) -> dict[str, Any]:
        """The scores as JSON: at least "held_out" (examples judged), "loss" and the headline."""
        ...
