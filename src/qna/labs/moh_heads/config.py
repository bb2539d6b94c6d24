"""What the laboratory of chosen heads is told."""

from __future__ import annotations

from dataclasses import dataclass

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts, check_multiple
from qna.labs.small_vit import SmallViTConfig


@dataclass(frozen=True)
class MoHHeadsConfig(SmallViTConfig):
    """Vision transformers of some of whose heads every token chooses, and others of fixed heads.

    Attributes:
        dim: channels, a multiple of 64: heads are of 16 channels, and a quarter of them is shared.
        speaking: parts of the heads that speak for a token, the shared quarter among them.
        time_depth: blocks of the small ViT, of 384 channels, whose inference is timed.
        time_sizes: pixels per axis of the images on which it is timed.
        seconds: at least so long is every network timed.
    """

    images: int = 2000
    dim: int = 64
    depth: int = 4
    speaking: tuple[float, ...] = (0.75, 0.5)
    time_depth: int = 12
    time_sizes: tuple[int, ...] = (224, 384)
    seconds: float = 1.0
    minutes: float = 6.0

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "time_depth")
        check_multiple(self, "dim", 64)
        heads = self.dim // 16
        if not self.speaking or any(p * heads % 1 or not 0.25 < p < 1 for p in self.speaking):
            raise InvalidInput(
                f"speaking must be parts of {heads} heads, above 0.25 and below 1, got {self.speaking}"
            )
        if not self.time_sizes or min(self.time_sizes) < 16 or not self.seconds > 0:
            raise InvalidInput(
                f"time_sizes must be at least 16 and seconds above 0, got {self.time_sizes}, {self.seconds}"
            )
