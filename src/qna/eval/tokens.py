"""How well a network tells the next token: nats, bits per byte, and how many it has right, by length."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from qna.data.text import UNSCORED, TokenBatch


@dataclass(frozen=True)
class LengthScores:
    """Of sequences of one length.

    Attributes:
        length: tokens of each.
        sequences: that were judged.
        scored: tokens that were asked for.
        loss: nats per token that was asked for.
        right: part of them that was the likeliest.
        bits_per_byte: of text; None where sequences are drawn.
    """

    length: int
    sequences: int
    scored: int
    loss: float
    right: float
    bits_per_byte: float | None


@dataclass(frozen=True)
class TokenScores:
    """Of all lengths that were judged, the first that of training."""

    lengths: tuple[LengthScores, ...]

    @property
    def first(self) -> LengthScores:
        """At the length of training."""
        return self.lengths[0]


class TokenTally:
    """Counts logits against targets.

    Args:
        lengths: of the sequences, the first that of training.
        tokens_per_byte: of the text; None where there is none.
        device: where the logits are.
    """

    def __init__(self, lengths: Sequence[int], tokens_per_byte: float | None, device: torch.device | str):
        self.lengths, self.tokens_per_byte = tuple(lengths), tokens_per_byte
        # some devices have no double precision
        real = torch.float32 if torch.device(device).type == "mps" else torch.float64
        # sequences, tokens asked for, nats, tokens right
        self.sums = torch.zeros(len(self.lengths), 4, dtype=real, device=device)

    def add(self, output: Tensor, batch: TokenBatch) -> None:
        """Count logits (B, N, vocabulary)."""
        targets = batch.targets.to(output.device)
        flat, asked = output.flatten(0, 1), targets != UNSCORED
        nats = F.cross_entropy(flat.float(), targets.flatten(), ignore_index=UNSCORED, reduction="sum")
        right = (output.argmax(-1) == targets)[asked].sum()
        counts = [targets.new_tensor(len(targets)), asked.sum(), nats, right]
        self.sums[self.lengths.index(targets.shape[1])] += torch.stack(
            [c.to(self.sums.dtype) for c in counts]
        )

    def reduce(self, summed: Callable[[Tensor], Tensor], gathered: Callable[[list], list]) -> None:
        """Sum over all processes."""
        self.sums = summed(self.sums)

    def scores(self) -> TokenScores:
        """Of everything counted."""
        rows = zip(self.lengths, self.sums.tolist(), strict=True)
        return TokenScores(tuple(self._of_length(length, *row) for length, row in rows))

    def _of_length(
        self, length: int, sequences: float, scored: float, nats: float, right: float
    ) -> LengthScores:
        loss = nats / scored if scored else math.nan
        per_byte = None if self.tokens_per_byte is None else loss / math.log(2) * self.tokens_per_byte
        return LengthScores(
            length=length,
            sequences=int(sequences),
            scored=int(scored),
            loss=loss,
            right=right / scored if scored else math.nan,
            bits_per_byte=per_byte,
        )
