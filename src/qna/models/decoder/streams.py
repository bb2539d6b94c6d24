"""What a decoder reads beside its tokens: sequences of which some of its mixers make queries and keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from qna.parts.protocols import GoesOn, TakesQkSource
from qna.parts.qk_source import FixedText, QkSource, counted_words
from qna.parts.sequence_state import SequenceState, SharedByAll

# where a state keeps those of the sequences beside
BESIDE = "beside"
# one block: which, what goes in, its source, and of which sequence; None for the decoder's own
Through = Callable[[int, Tensor, Tensor | None, QkSource | None], Tensor]


@dataclass(frozen=True)
class Streams:
    """Which sequences the blocks of a decoder ask for, and how far each has to be taken.

    A sequence that all share passes the blocks as the decoder's own does, at a batch of 1: where a block's
    mixer asks for one, be it this one or another, it is given that one as it stands before the block.

    Attributes:
        asked: by block.
        shared: those that pass the blocks, once each, in the order in which they are asked for.
        until: block that asks for one last; -1 where none does.
    """

    asked: tuple[QkSource | None, ...]
    shared: tuple[QkSource, ...]
    until: int

    @classmethod
    def of(cls, mixers: Sequence[nn.Module]) -> Streams:
        """What these mixers ask for now: a map that is fixed asks for nothing."""
        asked = tuple(m.qk_source if isinstance(m, TakesQkSource) else None for m in mixers)
        shared = tuple(dict.fromkeys(source for source in asked if source is not None and source.shared))
        last = [i for i, source in enumerate(asked) if source is not None and source.shared]
        return cls(asked, shared, max(last, default=-1))

    def walk(self, own: Tensor, beside: Mapping[QkSource, Tensor], through: Through) -> Tensor:
        """Take the decoder's own sequence through all blocks, those beside it as far as they are asked for.

        Args:
            own: (B, N, dim), before the first block.
            beside: of each that is shared (1, N, dim).
            through: one block.
        """
        first: dict[QkSource | None, Tensor] = {None: own, **beside}
        now = dict(first)
        for i, asked in enumerate(self.asked):
            fed = dict(now)
            for which, x in now.items():
                if which is not None and i >= self.until:
                    continue
                source = None if asked is None else now[asked] if asked.shared else first[which]
                fed[which] = through(i, x, source, which)
            now = fed
        return now[None]

    def states(self, mixers: Sequence[nn.Module], **place: Any) -> SharedByAll:
        """Of every sequence beside, before its first position, those of the blocks that it passes."""
        each = [
            SequenceState(
                "a sequence beside",
                1,
                0,
                {
                    f"block{i}": cast(GoesOn, mixer).init_state(1, **place)
                    for i, mixer in enumerate(mixers[: max(self.until, 0)])
                },
            )
            for _ in self.shared
        ]
        return SharedByAll(tuple(each))

    def state_bytes(self, mixers: Sequence[nn.Module], length: int, dim: int, dtype: torch.dtype) -> int:
        """Bytes of those states after `length` positions."""
        passed = [cast(GoesOn, mixer) for mixer in mixers[: max(self.until, 0)]]
        return len(self.shared) * sum(mixer.state_bytes((1, length, dim), dtype) for mixer in passed)


def text_of(mixers: Sequence[nn.Module], vocabulary: int) -> Tensor | None:
    """Tokens of the text that mixers ask for until another is given, int64 (n,); None where none asks.

    Bytes of numbers in words, modulo the vocabulary where that has fewer.
    """
    asked = [m.qk_source for m in mixers if isinstance(m, TakesQkSource)]
    lengths = [source.length for source in asked if isinstance(source, FixedText)]
    return counted_words(max(lengths)) % vocabulary if lengths else None
