"""What the laboratory of QnA's cost is told."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Literal

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts, check_rates


@dataclass(frozen=True)
class QnACostConfig:
    """Layers over windows, then two networks of equal cost.

    Attributes:
        windows: taps per axis of the square windows, ascending and odd: halo attention knows no others.
        batch: images of the map that the layers get.
        side: height and width of that map; a block of 4 to 8 positions must divide it.
        dim: channels of all layers, a multiple of 32.
        seconds: time to spend on the calls of one layer in one mode.
        data: what the networks learn; digits comes with scikit-learn.
        data_dir: where the files of the data are; None for the usual places.
        epochs: passes over the training images.
        rates: learning rates; of each network the better one counts.
        seeds: training runs of each network at each rate.
        minutes: the budget in CPU minutes.
        seed: the first seed of the training runs.
    """

    windows: tuple[int, ...] = (3, 5, 7, 9, 11, 13)
    batch: int = 2
    side: int = 56
    dim: int = 64
    seconds: float = 0.5
    data: Literal["digits", "fashion-mnist", "cifar10"] = "digits"
    data_dir: Path | None = None
    epochs: int = 8
    rates: tuple[float, ...] = (8e-3, 1.6e-2)
    seeds: int = 4
    minutes: float = 10.0
    seed: int = 0

    def __post_init__(self):
        windows = self.windows
        if not windows or list(windows) != sorted(set(windows)) or any(k < 1 or k % 2 == 0 for k in windows):
            raise InvalidInput(f"windows must be odd and ascending, 3 7 13 for example, got {windows}")
        check_counts(self, "batch", "side", "epochs", "seeds")
        if self.dim < 32 or self.dim % 32:
            raise InvalidInput(f"dim must be a multiple of 32, got {self.dim}")
        if not any(self.side % block == 0 for block in (4, 5, 6, 7, 8)):
            raise InvalidInput(f"side must be a multiple of 4, 5, 6, 7 or 8, got {self.side}")
        check_rates(self.rates)
        if not (0 < self.seconds < inf and self.minutes > 0):
            raise InvalidInput(
                f"seconds and minutes must be above 0, got {self.seconds:g} and {self.minutes:g}"
            )
