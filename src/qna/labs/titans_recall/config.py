"""What the laboratory of memories that learn is told."""

from __future__ import annotations

from dataclasses import dataclass

from qna._core.errors import InvalidInput
from qna.data.text import Needle, Recall
from qna.labs.config_checks import check_counts, check_multiple, check_rates
from qna.labs.small_decoder import SmallDecoderConfig
from qna.labs.titans_recall.questions import Either, RecallBesideNeedle

# tokens that say nothing
FILLER = 8


@dataclass(frozen=True)
class TitansRecallConfig(SmallDecoderConfig):
    """Decoders that are asked for what they read, beyond the window of their attention.

    Attributes:
        steps: of training; every fourth sequence is a needle, about.
        depth: blocks: one that sees a position and the one before, then those that differ.
        pairs: keys with a value each, that are all asked for.
        keys: that there are, and as many values; a single one with its value is the needle.
        length: tokens of a sequence that is trained on.
        times: lengths that are judged, in lengths of training; the largest decides.
        window: positions that attention sees, where it does not see all; a segment where memory is its
            context.
        chunk: positions whose gradients are taken at once.
        step: largest step of the memory.
        deep_step: largest step of the memory of two layers.
        judged: held-out sequences of each length.
        rate: the highest learning rate.
    """

    steps: int = 1000
    pairs: int = 6
    keys: int = 16
    length: int = 48
    times: tuple[int, ...] = (1, 2, 4)
    window: int = 16
    chunk: int = 16
    step: float = 0.5
    deep_step: float = 0.05
    judged: int = 128
    rate: float = 3e-3

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "pairs", "keys", "length", "window", "chunk", "judged")
        check_rates((self.rate, 1.0))
        check_multiple(self, "window", self.chunk)
        if 1 not in self.times or min(self.times) < 1 or max(self.times) < 2:
            raise InvalidInput(f"times must have 1 and one above it, and none below 1, got {self.times}")
        if self.depth < 2:
            raise InvalidInput(f"depth must be at least 2, got {self.depth}")
        if self.length < self.either.shortest:
            raise InvalidInput(
                f"length must be at least {self.either.shortest} for {self.pairs} pairs, got {self.length}"
            )

    @property
    def either(self) -> Either:
        """What is trained on: both tasks."""
        recall = Recall(pairs=self.pairs, keys=self.keys, values=self.keys, filler=FILLER)
        needle = Needle(keys=self.keys, values=self.keys, width=1, filler=FILLER)
        return Either(RecallBesideNeedle(recall), needle)
