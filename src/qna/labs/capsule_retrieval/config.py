"""What the laboratory of routed capsules is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts, check_minutes, check_rates


@dataclass(frozen=True)
class CapsuleRetrievalConfig:
    """Two encoders that learn to find each other's features, with one way of routing or another.

    Attributes:
        data: images of ten classes, one channel each; digits comes with scikit-learn.
        data_dir: where the files of the data are; None for the usual places.
        capsules: of each modality.
        dim: channels of a capsule.
        more: capsules of a further network with routing by self-attention.
        iterations: of the routings that iterate.
        out_dim: of the joint feature.
        steps: of training.
        batch: pairs of a step, at most as many as there are captions.
        rate: of Adam, to 0 along a cosine.
        temperature: of the contrastive loss.
        judged: held-out pairs, among which each is searched.
        seeds: training runs of each contender.
        counts: capsules to take time and memory at, ascending; the last decides.
        cost_batch: examples of a call that is measured.
        seconds: at least so long is each timed at each count.
        minutes: the budget in CPU minutes.
        seed: the first seed.
    """

    data: Literal["digits", "fashion-mnist"] = "fashion-mnist"
    data_dir: Path | None = None
    capsules: int = 32
    dim: int = 16
    more: int = 96
    iterations: int = 3
    out_dim: int = 64
    steps: int = 600
    batch: int = 64
    rate: float = 2e-3
    temperature: float = 0.1
    judged: int = 400
    seeds: int = 3
    counts: tuple[int, ...] = (8, 16, 32, 64, 128)
    cost_batch: int = 32
    seconds: float = 0.5
    minutes: float = 15.0
    seed: int = 0

    def __post_init__(self):
        check_counts(self, "capsules", "dim", "more", "iterations", "out_dim", "steps", "seeds", "cost_batch")
        check_rates((self.rate,))
        check_minutes(self.minutes)
        if not (self.seconds > 0 and self.temperature > 0):
            raise InvalidInput(
                f"seconds and temperature must be above 0, got {self.seconds:g} and {self.temperature:g}"
            )
        if not 2 <= self.batch <= 200 or self.judged < 2:
            raise InvalidInput(
                f"batch must be 2 to 200, the captions that there are, and judged 2 or more, got "
                f"{self.batch} and {self.judged}"
            )
        if not self.counts or list(self.counts) != sorted(set(self.counts)) or self.counts[0] < 1:
            raise InvalidInput(f"counts must be positive and ascending, got {self.counts}")
