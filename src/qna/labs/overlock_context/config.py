"""What the laboratory of OverLoCK's context is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts, check_minutes, check_rates


@dataclass(frozen=True)
class OverLoCKContextConfig:
    """Networks that differ in where their kernels come from.

    Attributes:
        data: what they learn; digits comes with scikit-learn.
        data_dir: where the files of the data are; None for the usual places.
        images: training images, the first of an order that the seed draws; all where there are fewer.
        held_out: images to judge on, the first of the data's own.
        image_size: pixels per axis to which images are enlarged.
        fields: pixels per axis of the images on which receptive fields are measured, from small to large. A
            field is cut off where an image ends.
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
    held_out: int = 500
    image_size: int = 64
    fields: tuple[int, ...] = (256, 512)
    epochs: int = 3
    batch: int = 32
    rates: tuple[float, ...] = (4e-3,)
    seeds: int = 3
    minutes: float = 5.0
    seed: int = 0

    def __post_init__(self):
        check_counts(self, "images", "held_out", "image_size", "epochs", "batch", "seeds")
        sizes = self.fields
        if len(sizes) < 2 or sizes[0] < 32 or sorted(set(sizes)) != list(sizes):
            raise InvalidInput(
                f"fields must be two sizes or more, from small to large and none below 32 pixels, got {sizes}"
            )
        check_rates(self.rates)
        check_minutes(self.minutes)
