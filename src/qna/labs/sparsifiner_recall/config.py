"""What the laboratory of predicted masks is told."""

from __future__ import annotations

from dataclasses import dataclass

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts
from qna.labs.small_vit import SmallViTConfig


@dataclass(frozen=True)
class SparsifinerRecallConfig(SmallViTConfig):
    """Vision transformers of which every query sees some keys, chosen in several ways.

    Attributes:
        keep: parts of the keys that are seen when a network is judged.
        tune_keep: the part that it is trained with.
        fit_epochs: that predictors learn in, beside a trained network that rests.
        tune_epochs: that the network learns in afterwards, with its masks.
        tune_rate: of learning in them, as a part of that before.
    """

    images: int = 4000
    held_out: int = 1000
    keep: tuple[float, ...] = (0.1, 0.25, 0.5)
    tune_keep: float = 0.25
    fit_epochs: int = 3
    tune_epochs: int = 1
    tune_rate: float = 0.25
    depth: int = 4
    epochs: int = 6

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "fit_epochs", "tune_epochs")
        if not self.keep or not all(0 < rate < 1 for rate in (*self.keep, self.tune_keep)):
            raise InvalidInput(
                f"keep and tune_keep must be parts between 0 and 1, got {self.keep} and {self.tune_keep}"
            )
        if not 0 < self.tune_rate <= 1:
            raise InvalidInput(f"tune_rate must be above 0 and at most 1, got {self.tune_rate}")
