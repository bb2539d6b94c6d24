"""What the laboratory of bi-level routing is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts, check_minutes, check_rates


@dataclass(frozen=True)
class BiFormerRoutingConfig:
    """Networks of one stage that differ in which regions a region attends, and one layer at a large map.

    Attributes:
        data: what they learn; digits comes with scikit-learn.
        data_dir: where the files of the data are; None for the usual places.
        images: training images, the first of an order that the seed draws; all where there are fewer.
        held_out: images that accuracy is measured on, the first of the data's own.
        dim: channels, a multiple of 16.
        blocks: of the stage.
        patch_size: pixels per axis of a position of the map.
        regions: regions per axis.
        topk: regions that a region attends, fewer than there are.
        epochs: passes over the training images.
        batch: images of a step.
        rates: learning rates; of each network the best one counts.
        seeds: training runs of each network at each rate.
        side: positions per axis of the map on which the layer is measured.
        side_dim: its channels, a multiple of 32.
        seconds: at least so long is every form of the layer timed.
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
    regions: int = 7
    topk: int = 4
    epochs: int = 4
    batch: int = 16
    rates: tuple[float, ...] = (8e-3,)
    seeds: int = 3
    side: int = 160
    side_dim: int = 64
    seconds: float = 2.0
    minutes: float = 5.0
    seed: int = 0

    def __post_init__(self):
        check_counts(
            self,
            *("images", "held_out", "blocks", "patch_size", "regions", "topk", "epochs", "batch", "seeds"),
        )
        check_counts(self, "side")
        for name, multiple in (("dim", 16), ("side_dim", 32)):
            if getattr(self, name) < multiple or getattr(self, name) % multiple:
                raise InvalidInput(f"{name} must be a multiple of {multiple}, got {getattr(self, name)}")
        if self.topk >= self.regions**2:
            raise InvalidInput(f"topk must be below the {self.regions**2} regions, got {self.topk}")
        if not self.seconds > 0:
            raise InvalidInput(f"seconds must be above 0, got {self.seconds:g}")
        check_rates(self.rates)
        check_minutes(self.minutes)
