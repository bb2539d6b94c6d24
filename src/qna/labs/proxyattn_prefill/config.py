"""What the laboratory of ProxyAttn is told."""

from __future__ import annotations

from dataclasses import dataclass

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts, check_minutes


@dataclass(frozen=True)
class ProxyattnPrefillConfig:
    """A small decoder, trained at a short context, that reads long texts.

    Attributes:
        model: the decoder's size, by name; its mixer is `CausalAttention1d`.
        data: text, as of the task `language`.
        context: tokens that it is trained at.
        steps: updates.
        batch: sequences of an update.
        rate: the learning rate at its height.
        lengths: tokens of the texts that are read.
        texts: held-out texts of each length.
        gamma: of `ProxyBlocks`.
        block: the same.
        proxies: the same.
        least: the same.
        queries: of each text, that recall is told of.
        seconds: at least so long is every form of attention timed.
        minutes: the budget in CPU minutes.
        seed: of weights, batches and texts.
    """

    model: str = "decoder_nano"
    data: str = "stdlib"
    context: int = 512
    steps: int = 1600
    batch: int = 4
    rate: float = 2e-3
    lengths: tuple[int, ...] = (16_384, 65_536)
    texts: int = 2
    gamma: float = 0.95
    block: int = 128
    proxies: int = 1
    least: int = 2048
    queries: int = 256
    seconds: float = 2.0
    minutes: float = 30.0
    seed: int = 0

    def __post_init__(self):
        check_counts(self, "context", "steps", "batch", "texts", "queries", "block", "proxies")
        check_minutes(self.minutes)
        if not self.lengths or min(self.lengths) < self.context:
            raise InvalidInput(
                f"lengths must be at least the context of training, {self.context}, got {self.lengths}"
            )
        if not self.rate > 0 or not self.seconds > 0:
            raise InvalidInput(f"rate and seconds must be above 0, got {self.rate} and {self.seconds}")
