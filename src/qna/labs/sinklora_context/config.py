"""What the laboratory of shifted groups is told."""

from __future__ import annotations

from dataclasses import dataclass

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts, check_minutes, check_multiple, check_rates


@dataclass(frozen=True)
class SinkloraContextConfig:
    """One decoder of short contexts, adapted to a longer one by each way to attend in training.

    Attributes:
        data: text, as `qna train --task language --data` takes it.
        short: tokens of the sequences that the decoder is trained on first.
        times: how many times as long the sequences are that it is adapted to.
        dim: channels of the decoder, a multiple of 8.
        depth: its blocks.
        tokens: of a step, in training and adapting.
        base_steps: of training.
        base_rate: of AdamW in training.
        steps: of adapting.
        rate: of AdamW in adapting.
        judged: held-out sequences of the long context.
        leak_steps: of training on strings whose end repeats their beginning.
        leak_seeds: such trainings.
        seeds: adaptations by each way.
        minutes: the budget in CPU minutes.
        seed: the first seed.
    """

    data: str = "stdlib"
    short: int = 128
    times: int = 2
    dim: int = 64
    depth: int = 2
    tokens: int = 4096
    base_steps: int = 1200
    base_rate: float = 3e-3
    steps: int = 150
    rate: float = 5e-3
    judged: int = 192
    leak_steps: int = 300
    leak_seeds: int = 2
    seeds: int = 3
    minutes: float = 10.0
    seed: int = 0

    def __post_init__(self):
        check_counts(
            self, "short", "depth", "tokens", "base_steps", "steps", "judged", "leak_steps", "leak_seeds",
            "seeds",
        )  # fmt: skip
        check_multiple(self, "dim", 8)
        check_rates((self.base_rate,))
        check_rates((self.rate,))
        check_minutes(self.minutes)
        if self.times < 2:
            raise InvalidInput(f"times must be at least 2, so that a context grows, got {self.times}")
        # the wrapped form takes no other, and half groups must be whole
        if self.long % 8:
            raise InvalidInput(f"short * times must be a multiple of 8, got {self.long}")

    @property
    def long(self) -> int:
        """Tokens of the long context."""
        return self.short * self.times
