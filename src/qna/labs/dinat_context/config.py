"""What the laboratory of dilated neighbourhoods is told."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Literal

from qna._core.errors import InvalidInput


@dataclass(frozen=True)
class DiNATContextConfig:
    """Networks of one stage that differ in the dilation, or in the size, of their neighbourhoods.

    Attributes:
        data: what they learn; digits comes with scikit-learn.
        data_dir: where the files of the data are; None for the usual places.
        images: training images, the first of an order that the seed draws; all where there are fewer.
        held_out: images that accuracy is measured on, the first of the data's own.
        dim: channels, a multiple of 16.
        blocks: of the stage; every second is dilated where any is.
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
    blocks: int = 2
    patch_size: int = 2
    epochs: int = 4
    batch: int = 16
    rates: tuple[float, ...] = (8e-3, 1.6e-2)
    seeds: int = 3
    minutes: float = 5.0
    seed: int = 0

    def __post_init__(self):
        for name in ("images", "held_out", "blocks", "patch_size", "epochs", "batch", "seeds"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.dim < 16 or self.dim % 16:
            raise InvalidInput(f"dim must be a multiple of 16, got {self.dim}")
        rates = self.rates
        if not rates or len(set(rates)) < len(rates) or not all(0 < r < inf for r in rates):
            raise InvalidInput(f"rates must be positive and differ, got {rates}")
        if not self.minutes > 0:
            raise InvalidInput(f"minutes must be above 0, got {self.minutes:g}")
