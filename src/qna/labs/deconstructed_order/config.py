"""What the laboratory of deconstructed attention is told."""

from __future__ import annotations

from dataclasses import dataclass

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts, check_minutes, check_multiple, check_rates


@dataclass(frozen=True)
class DeconstructedOrderConfig:
    """Decoders that are alike but for what mixes, on text and on induction.

    Attributes:
        dim: channels, a multiple of 24: four heads, and MLPs of exactly as many parameters.
        depth: layers, an even number.
        rate: learning rate of AdamW, the highest; it rises for a tenth of the steps and falls along a cosine.
        text_bytes: of the source of Python's standard library to train on.
        context: bytes of a window of text.
        text_steps: of training on text.
        text_batch: windows of a step.
        length: tokens of an induction sequence.
        symbols: of induction, beside its marker.
        induction_steps: of training on induction.
        induction_batch: sequences of a step.
        judged: held-out sequences of each task.
        looked_at: of them, those on which attention is looked at.
        seeds: training runs of each decoder and task.
        minutes: the budget in CPU minutes.
        seed: the first seed.
    """

    dim: int = 48
    depth: int = 4
    rate: float = 3e-3
    text_bytes: int = 2_000_000
    context: int = 64
    text_steps: int = 300
    text_batch: int = 16
    length: int = 24
    symbols: int = 8
    induction_steps: int = 250
    induction_batch: int = 64
    judged: int = 512
    looked_at: int = 16
    seeds: int = 3
    minutes: float = 20.0
    seed: int = 0

    def __post_init__(self):
        check_counts(
            self, "depth", "text_bytes", "context", "text_steps", "text_batch", "length", "symbols",
            "induction_steps", "induction_batch", "judged", "looked_at", "seeds",
        )  # fmt: skip
        check_multiple(self, "dim", 24)
        check_rates((self.rate,))
        check_minutes(self.minutes)
        if self.depth % 2:
            raise InvalidInput(f"depth must be even, every other layer standard, got {self.depth}")
