"""What the laboratory of focal modulation and shifts is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts, check_minutes, check_rates


@dataclass(frozen=True)
class FocalNetShiftConfig:
    """Networks of two stages that differ in what mixes positions.

    Attributes:
        data: what they learn; digits comes with scikit-learn.
        data_dir: where the files of the data are; None for the usual places.
        images: training images, the first of an order that the seed draws; all where there are fewer.
        held_out: images to judge on, the first of the data's own.
        dim: channels of the first stage, a multiple of 16.
        blocks: of a stage; every second of windows is shifted.
        patch_size: pixels per axis of a position of the first map.
        window: positions per axis of a window.
        margin: pixels of black around an image, so that a shifted one is whole.
        shifts: pixels along both axes by which images are moved, in four directions.
        epochs: passes over the training images, none of which is moved.
        batch: images of a step.
        rates: learning rates; of each network the better one counts.
        seeds: training runs of each network at each rate.
        minutes: the budget in CPU minutes.
        seed: the first seed.
    """

    data: Literal["fashion-mnist", "digits"] = "fashion-mnist"
    data_dir: Path | None = None
    images: int = 1200
    held_out: int = 500
    dim: int = 16
    blocks: int = 2
    patch_size: int = 2
    window: int = 5
    margin: int = 6
    shifts: tuple[int, ...] = (2, 4)
    epochs: int = 5
    batch: int = 32
    rates: tuple[float, ...] = (4e-3, 1e-2)
    seeds: int = 3
    minutes: float = 5.0
    seed: int = 0

    def __post_init__(self):
        check_counts(
            self,
            *("images", "held_out", "blocks", "patch_size", "window", "margin", "epochs", "batch", "seeds"),
        )
        if self.dim < 16 or self.dim % 16:
            raise InvalidInput(f"dim must be a multiple of 16, got {self.dim}")
        if not self.shifts or not all(1 <= shift <= self.margin for shift in self.shifts):
            raise InvalidInput(
                f"shifts must be pixels from 1 to margin={self.margin}, one or more, got {self.shifts}"
            )
        check_rates(self.rates)
        check_minutes(self.minutes)
