"""What the laboratory of prompts is told."""

from __future__ import annotations

from dataclasses import dataclass

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts, check_rates
from qna.labs.small_vit import SmallViTConfig


@dataclass(frozen=True)
class TCPATransferConfig(SmallViTConfig):
    """Vision transformers that are trained on `data` and adapted to handwritten digits.

    Attributes:
        epochs: passes over the images of `data`.
        held_out: of the digits, to judge on.
        rates: learning rates of adapting; of each contender the better one counts.
        source_rate: learning rate on `data`.
        pool: prompts in each of the two pools of a block; of the control twice as many.
        top: how many of a pool a token chooses.
        target_images: digits to adapt to, the first of an order that the seed draws.
        target_epochs: passes over them; in a tenth of them, as published, prompts are chosen at random.
    """

    images: int = 3000
    held_out: int = 360
    depth: int = 4
    epochs: int = 4
    batch: int = 25
    rates: tuple[float, ...] = (2e-2, 6e-2)
    source_rate: float = 2e-3
    pool: int = 8
    top: int = 4
    target_images: int = 500
    target_epochs: int = 12

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "pool", "top", "target_images", "target_epochs")
        check_rates((self.source_rate,))
        if self.top > self.pool:
            raise InvalidInput(f"top must be at most pool, got {self.top} of {self.pool}")
