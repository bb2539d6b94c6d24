"""What a run tells while it goes and what it leaves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from qna.train.checkpoint import Progress
from qna.train.config import TrainConfig
from qna.train.learner import Learner
from qna.train.task import Task


class RunView(Protocol):
    """What an observer may look at.

    Attributes:
        config: what the run is told.
        task: what it learns.
        data: what it learns from, as the task has loaded it.
        learner: network, optimizer and average.
        progress: how far it is.
        folder: where the results go.
        total_steps: updates of the whole run.
    """

    config: TrainConfig
    task: Task
    data: Any
    learner: Learner
    progress: Progress
    folder: Path
    total_steps: int


class Observer:
    """Told what happens in a run; this one does nothing."""

    def begin(self, run: RunView) -> None:
        """The run has been set up."""

    def update(self, step: int, epoch: int, loss: float) -> None:
        """An update was made."""

    def epoch(self, record: dict[str, Any]) -> None:
        """An epoch is complete and evaluated."""

    def unreadable(self, line: str) -> None:
        """An example could not be read; told once for each."""


@dataclass(frozen=True)
class Outcome:
    """What a run left.

    Attributes:
        folder: where everything is.
        config: what it was told.
        network: as evaluated: the running average if there is one.
        task: what was learned.
        data: as the task loaded it.
        scores: on the held-out examples, as the task counts them.
        history: one record per epoch.
        metrics: what metrics.json holds.
    """

    folder: Path
    config: TrainConfig
    network: nn.Module
    task: Task
    data: Any
    scores: Any
    history: list[dict[str, Any]]
    metrics: dict[str, Any]
