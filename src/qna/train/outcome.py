"""What a run tells while it goes and what it leaves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from qna.data import ImageData
from qna.eval import Scores
from qna.train.config import TrainConfig

if TYPE_CHECKING:
    from qna.train.loop import Training


class Observer:
    """Told what happens in a run; this one does nothing."""

    def begin(self, run: Training) -> None:
        """The run has been set up."""

    def update(self, step: int, epoch: int, loss: float) -> None:
        """An update was made."""

    def epoch(self, record: dict[str, Any]) -> None:
        """An epoch is complete and evaluated."""

    def unreadable(self, line: str) -> None:
        """An image could not be read; told once for each."""


@dataclass(frozen=True)
class Outcome:
    """What a run left.

    Attributes:
        folder: where everything is.
        config: what it was told.
        network: as evaluated: the running average if there is one.
        data: the images.
        scores: on the held-out images.
        history: one record per epoch.
        metrics: what metrics.json holds.
    """

    folder: Path
    config: TrainConfig
    network: nn.Module
    data: ImageData
    scores: Scores
    history: list[dict[str, Any]]
    metrics: dict[str, Any]
