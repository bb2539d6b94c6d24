"""What the laboratory of shifted windows is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts, check_minutes, check_rates


@dataclass(frozen=True)
class SwinShiftConfig:
    """Networks of one stage that differ in where the windows of every second block lie.

    Attributes:
        data: what they learn; digits comes with scikit-learn.
        data_dir: where the files of the data are; None for the usual places.
        images: training images, the first of an order that the seed draws; all where there are fewer.
        held_out: images that accuracy is measured on, the first of the data's own.
        dim: channels, a multiple of 16.
        blocks: of the stage, two or more; every second is shifted where any is.
        window: positions per axis of a window, two or more.
        patch_size: pixels per axis of a position of the map.
        epochs: passes over the training images.
        batch: images of a step.
        rates: learning rates; of each network the better one counts.
        seeds: training runs of each network at each rate.
        minutes: the budget in CPU minutes.
        seed: the first seed.
    """

    data: Literal["fashion-mnist", "digits", "cifar10"] = "fashion-mnist"
    data_dir: Path | None = None
    images: int = 1200
    held_out: int = 1000
    dim: int = 32
    blocks: int = 4
    window: int = 4
    patch_size: int = 2
    epochs: int = 4
    batch: int = 16
    rates: tuple[float, ...] = (2e-3, 6e-3)
    seeds: int = 3
    minutes: float = 5.0
    seed: int = 0

    def __post_init__(self):
        check_counts(self, "images", "held_out", "patch_size", "epochs", "batch", "seeds")
        if self.dim < 16 or self.dim % 16:
            raise InvalidInput(f"dim must be a multiple of 16, got {self.dim}")
        if self.blocks < 2 or self.window < 2:
            raise InvalidInput(
                f"there is nothing to shift in blocks={self.blocks} of window={self.window}: both must be at "
                "least 2"
            )
        check_rates(self.rates)
        check_minutes(self.minutes)
