"""What the laboratory of the time that sparse attention takes is told."""

from __future__ import annotations

from dataclasses import dataclass

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts, check_minutes


@dataclass(frozen=True)
class SparsifinerCostConfig:
    """Inference of one network, dense and sparse, with random weights.

    Attributes:
        model: a plain vision transformer, by its name in timm.
        sizes: pixels per axis of the images that it reads.
        batch: images of a call.
        keep: part of the keys that are seen.
        tokens: part of the tokens that each of `layers` leaves where tokens go as well.
        layers: blocks behind which tokens go.
        seconds: at least so long is every network timed, and every part of its attention.
        minutes: the budget in CPU minutes.
        seed: of weights and images.
    """

    model: str = "deit_small_patch16_224"
    sizes: tuple[int, ...] = (224, 384)
    batch: int = 1
    keep: float = 0.25
    tokens: float = 0.7
    layers: tuple[int, ...] = (3, 6, 9)
    seconds: float = 0.5
    minutes: float = 2.0
    seed: int = 0

    def __post_init__(self):
        check_counts(self, "batch")
        check_minutes(self.minutes)
        if not self.sizes or min(self.sizes) < 1 or not self.seconds > 0:
            raise InvalidInput(f"sizes and seconds must be above 0, got {self.sizes} and {self.seconds}")
        if not 0 < self.keep < 1 or not 0 < self.tokens < 1:
            raise InvalidInput(
                f"keep and tokens must be parts between 0 and 1, got {self.keep} and {self.tokens}"
            )
