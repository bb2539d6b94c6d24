"""What the laboratory of gates in causal attention is told."""

from __future__ import annotations

from dataclasses import dataclass

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts, check_rates
from qna.labs.small_decoder import SmallDecoderConfig


@dataclass(frozen=True)
class GatedCausalConfig(SmallDecoderConfig):
    """Decoders of text that are alike but for gates, at several learning rates.

    Attributes:
        length: bytes of a window.
        text: bytes to train on.
        judged: held-out windows.
        rates: learning rates, two at least; at the highest one it is judged who bears it.
    """

    depth: int = 4
    heads: int = 4
    steps: int = 150
    length: int = 128
    text: int = 2_000_000
    judged: int = 64
    rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2)

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "length", "text", "judged")
        check_rates(self.rates)
        if len(self.rates) < 2:
            raise InvalidInput(f"rates must be two at least, so that one is the highest, got {self.rates}")
