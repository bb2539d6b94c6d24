"""What the laboratory of blocks with a halo is told."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Literal

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts, check_minutes, check_rates


@dataclass(frozen=True)
class HaloBlocksConfig:
    """Layers, then networks of one stage, that differ in blocks and halos.

    Attributes:
        data: what they learn; digits comes with scikit-learn.
        data_dir: where the files of the data are; None for the usual places.
        images: training images, the first of an order that the seed draws; all where there are fewer.
        held_out: images that accuracy is measured on, the first of the data's own.
        width: channels of the attention, a multiple of 8; twice as many outside.
        blocks: bottlenecks of the stage.
        block_size: queries per axis of a block, even.
        patch_size: pixels per axis of a position of the map.
        epochs: passes over the training images.
        batch: images of a step.
        rates: learning rates; of each network the better one counts.
        seeds: training runs of each network at each rate.
        seconds: time to spend on the calls of one layer in one mode.
        minutes: the budget in CPU minutes.
        seed: the first seed.
    """

    data: Literal["fashion-mnist", "digits", "cifar10"] = "fashion-mnist"
    data_dir: Path | None = None
    images: int = 1000
    held_out: int = 1000
    width: int = 16
    blocks: int = 3
    block_size: int = 4
    patch_size: int = 2
    epochs: int = 4
    batch: int = 16
    rates: tuple[float, ...] = (6e-3, 1.5e-2)
    seeds: int = 3
    seconds: float = 1.0
    minutes: float = 6.0
    seed: int = 0

    def __post_init__(self):
        check_counts(self, "images", "held_out", "blocks", "patch_size", "epochs", "batch", "seeds")
        if self.width < 8 or self.width % 8:
            raise InvalidInput(f"width must be a multiple of 8, got {self.width}")
        if self.block_size < 2 or self.block_size % 2:
            raise InvalidInput(f"block_size must be even, of at least 2, got {self.block_size}")
        if not 0 < self.seconds < inf:
            raise InvalidInput(f"seconds must be above 0, got {self.seconds:g}")
        check_rates(self.rates)
        check_minutes(self.minutes)
