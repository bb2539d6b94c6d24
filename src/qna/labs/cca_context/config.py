"""What the laboratory of core tokens is told."""

from __future__ import annotations

from dataclasses import dataclass

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts, check_rates
from qna.labs.small_decoder import SmallDecoderConfig


@dataclass(frozen=True)
class CcaContextConfig(SmallDecoderConfig):
    """Decoders of text that learn with full attention, and go on with less; and the time of long prompts.

    Attributes:
        steps: of training with full attention.
        tuned: further steps, with the attention of each contender.
        rate: the highest of training; a third of it of the further steps.
        length: bytes of a window, in training and where it is judged.
        text: bytes to train on.
        judged: held-out windows.
        window: positions that are seen one by one at least.
        group: positions of a core token.
        sinks: first positions that are always seen, where there are some.
        prompts: positions of the prompts that are timed; the longest decides.
        time_dim: channels of the decoder that is timed.
        time_depth: its blocks.
        time_heads: of its attention.
        time_window: positions that its queries see one by one.
        time_group: positions of its core tokens.
        seconds: at least so long is every decoder timed at every length.
    """

    depth: int = 3
    heads: int = 4
    steps: int = 300
    batch: int = 8
    tuned: int = 80
    rate: float = 6e-3
    length: int = 512
    text: int = 2_000_000
    judged: int = 24
    window: int = 16
    group: int = 8
    sinks: int = 4
    prompts: tuple[int, ...] = (4096, 8192, 16384, 32768)
    time_dim: int = 128
    time_depth: int = 2
    time_heads: int = 4
    time_window: int = 1024
    time_group: int = 16
    seconds: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        check_counts(
            self, "tuned", "length", "text", "judged", "window", "group", "sinks", "time_dim", "time_depth",
            "time_heads", "time_window", "time_group",
        )  # fmt: skip
        check_rates((self.rate,))
        if not self.prompts or min(self.prompts) < 1 or not self.seconds > 0:
            raise InvalidInput(
                f"prompts must be at least 1 and seconds above 0, got {self.prompts} and {self.seconds}"
            )
        if self.narrow <= self.sinks:
            raise InvalidInput(
                f"a cache of {self.narrow} positions has no room for sinks={self.sinks} and a window; give "
                "fewer sinks, or longer sequences"
            )

    @property
    def narrow(self) -> int:
        """Positions of a window that keeps at least as much as core tokens do of a whole sequence.

        Behind N positions they are the core tokens of complete groups, and the positions that the next query
        sees one by one; a window of so many keeps all but one of them.
        """
        return cached(self.length, self.window, self.group) + 1


def cached(length: int, window: int, group: int) -> int:
    """Core tokens and positions that are kept after `length` positions."""
    single = length - group * max(0, (length + 1 - window) // group)
    return length // group + single
