"""What the laboratory of stand-alone self-attention is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts, check_minutes, check_rates


@dataclass(frozen=True)
class SasaStagesConfig:
    """Small ResNets that differ in which stages attend.

    Attributes:
        data: what they classify; digits comes with scikit-learn.
        data_dir: where the files of the data are; None for the usual places.
        images: training images, the first of an order that the seed draws; all where there are fewer.
        held_out: images to judge on, the first of the data's own.
        widths: channels of the spatial layer, per stage; multiples of 8.
        window: positions per axis that a position attends, odd.
        epochs: passes over the training images.
        batch: images of a step.
        rates: learning rates; of each network the better one counts.
        seeds: training runs of each network at each rate.
        minutes: the budget in CPU minutes.
        seed: the first seed.
    """

    data: Literal["fashion-mnist", "digits"] = "fashion-mnist"
    data_dir: Path | None = None
    images: int = 1000
    held_out: int = 1000
    widths: tuple[int, ...] = (8, 16, 32)
    window: int = 5
    epochs: int = 5
    batch: int = 32
    rates: tuple[float, ...] = (4e-3, 1e-2)
    seeds: int = 3
    minutes: float = 5.0
    seed: int = 0

    def __post_init__(self):
        check_counts(self, "images", "held_out", "epochs", "batch", "seeds")
        if len(self.widths) < 2 or not all(width >= 8 and width % 8 == 0 for width in self.widths):
            raise InvalidInput(f"widths must be multiples of 8, two or more, got {self.widths}")
        if self.window < 1 or self.window % 2 == 0:
            raise InvalidInput(f"window must be odd, got {self.window}")
        check_rates(self.rates)
        check_minutes(self.minutes)
