"""What the laboratory of convex hulls is told."""

from __future__ import annotations

from dataclasses import dataclass

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts, check_minutes, check_rates


@dataclass(frozen=True)
class PointerHullConfig:
    """Networks that learn to answer with the corners of the convex hull of a few points.

    Attributes:
        least: points of a problem at least, in training.
        most: points at most; a batch has one number, the next batch the next.
        unseen: further numbers of points to judge on, in ascending order.
        dim: channels of encoders and decoders.
        steps: of training the LSTMs.
        batch: problems of a step.
        rate: of Adam, after a warm-up of a fortieth of the steps, to 0 along a cosine.
        transformer_steps: of training the Transformer.
        transformer_batch: problems of its step.
        transformer_rate: of its Adam.
        attention: train the LSTM with attention and a fixed vocabulary, too.
        stages: parts of a training run; what an interruption loses is one of them at most.
        judged: problems of each size to judge on.
        minutes: the budget in CPU minutes.
        seed: of all draws.
    """

    least: int = 5
    most: int = 10
    unseen: tuple[int, ...] = (20, 50)
    dim: int = 128
    steps: int = 16000
    batch: int = 128
    rate: float = 3e-3
    transformer_steps: int = 10000
    transformer_batch: int = 64
    transformer_rate: float = 1e-3
    attention: bool = False
    stages: int = 8
    judged: int = 1000
    minutes: float = 40.0
    seed: int = 0

    def __post_init__(self):
        check_counts(self, "least", "dim", "batch", "transformer_batch", "stages", "judged")
        check_rates((self.rate,))
        check_rates((self.transformer_rate,))
        check_minutes(self.minutes)
        if not 3 <= self.least <= self.most:
            raise InvalidInput(
                f"points must be 3 or more, least <= most, got least={self.least} and most={self.most}"
            )
        if self.stages > min(self.steps, self.transformer_steps):
            raise InvalidInput(
                f"stages must be at most steps={self.steps} and "
                f"transformer_steps={self.transformer_steps}, got {self.stages}"
            )
        if not self.unseen or list(self.unseen) != sorted(set(self.unseen)) or self.unseen[0] <= self.most:
            raise InvalidInput(f"unseen must ascend from above most={self.most}, got {self.unseen}")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of points in training."""
        return tuple(range(self.least, self.most + 1))
