"""What every laboratory of paired contenders is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qna.labs.config_checks import check_counts, check_minutes, check_rates


@dataclass(frozen=True)
class PairedConfig:
    """Training runs of contenders, seed by seed, each at every learning rate.

    Attributes:
        data_dir: where the files of the data are; None for the usual places.
        images: training images, the first of an order that the seed draws; all where there are fewer.
        held_out: images to judge on, the first of the data's own.
        epochs: passes over the training images.
        batch: images of a step.
        rates: learning rates; of each contender the better one counts.
        seeds: training runs of each contender at each rate.
        minutes: the budget in CPU minutes.
        seed: the first seed.
    """

    data_dir: Path | None = None
    images: int = 1200
    held_out: int = 1000
    epochs: int = 4
    batch: int = 16
    rates: tuple[float, ...] = (4e-3, 8e-3)
    seeds: int = 3
    minutes: float = 5.0
    seed: int = 0

    def __post_init__(self):
        check_counts(self, "images", "held_out", "epochs", "batch", "seeds")
        check_rates(self.rates)
        check_minutes(self.minutes)
