"""What the laboratory of QnA's up-sampling is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts, check_minutes, check_rates

PHOTOGRAPHS = "photographs"


@dataclass(frozen=True)
class QnAUpsampleConfig:
    """Auto-encoders that differ in how their decoders up-sample.

    Attributes:
        data: what they restore; digits comes with scikit-learn, photographs, of which pieces are cut, with
            scikit-image.
        data_dir: where the files of the data are, or a folder of photographs; None for the usual places.
        images: training images, drawn by the seed; all where there are fewer.
        held_out: images that PSNR is measured on, of the data's own or of other photographs.
        dim: channels of the maps, a multiple of 8.
        code: channels of the smallest map, a quarter of the image's height and width.
        epochs: passes over the training images.
        batch: images of a step.
        rates: learning rates; of each decoder the better one counts.
        seeds: training runs of each decoder at each rate.
        minutes: the budget in CPU minutes.
        seed: the first seed.
    """

    data: Literal["fashion-mnist", "digits", "cifar10", "photographs"] = "fashion-mnist"
    data_dir: Path | None = None
    images: int = 2400
    held_out: int = 500
    dim: int = 24
    code: int = 4
    epochs: int = 4
    batch: int = 16
    rates: tuple[float, ...] = (1.6e-2, 3.2e-2)
    seeds: int = 3
    minutes: float = 25.0
    seed: int = 0

    def __post_init__(self):
        check_counts(self, "images", "held_out", "code", "epochs", "batch", "seeds")
        if self.dim < 8 or self.dim % 8:
            raise InvalidInput(f"dim must be a multiple of 8, got {self.dim}")
        check_rates(self.rates)
        check_minutes(self.minutes)
