"""Softmax attention whose queries and keys may be of another sequence than its values."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from qna._core.errors import InvalidInput
from qna.mixers.causal.softmax import SoftmaxAttention
from qna.parts.qk_source import QkSource
from qna.parts.sequence_state import SequenceState


class SourcedAttention(SoftmaxAttention):
    """``out(attend(turn(query(e)), turn(key(e)), value(x)))``, with e another sequence.

    Queries and keys are turned to their positions as those of standard attention are, which the paper leaves
    open. Arguments of `SoftmaxAttention`.
    """

    @property
    @abstractmethod
    def qk_source(self) -> QkSource | None:
        """What a network is to give."""

    @abstractmethod
    def by_itself(self, x: Tensor, start: int) -> Tensor:
        """The other sequence where no network gives one, at the positions of `x` from `start` on."""

    def forward(self, x: Tensor, qk_source: Tensor | None = None) -> Tensor:
        """(B, N, dim), and the other sequence (B or 1, N, dim), to (B, N, dim)."""
        self.check(x)
        return self.joined(self.attend(*self.project(x, 0, self._source(x, 0, qk_source))), x)

    def step(
        self, x: Tensor, state: SequenceState, qk_source: Tensor | None = None
    ) -> tuple[Tensor, SequenceState]:
        """As `CausalMixer.step`, with the next positions of the other sequence."""
        self.check(x)
        state.check(self.configuration, x.shape[0])
        return self.advance(x, state, qk_source)

    def advance(
        self, x: Tensor, state: SequenceState, qk_source: Tensor | None = None
    ) -> tuple[Tensor, SequenceState]:
        """Attention over what is kept and the new positions."""
        source = self._source(x, state.length, qk_source)
        attended, cache = state["cache"].attend(*self.project(x, state.length, source))
        return self.joined(attended, x), state.after(x.shape[1], cache=cache)

    def project(self, x: Tensor, start: int, source: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Turned queries and keys of `source`, and values of `x`."""
        query, key, value = self.heads(x, source)
        if self.rotary is not None:
            turns = self.rotary.turns_from(start, x.shape[1], query)
            query, key = self.rotary.rotate(query, turns), self.rotary.rotate(key, turns)
        return query, key, value

    def attention_map(self, x: Tensor, qk_source: Tensor | None = None) -> Tensor:
        """What each position gets of each other, (B or 1, h, N, N), at least in single precision."""
        self.check(x)
        return self.shown(*self.project(x, 0, self._source(x, 0, qk_source))[:2])

    def _source(self, x: Tensor, start: int, given: Tensor | None) -> Tensor:
        if given is None:
            return self.by_itself(x, start)
        if given.shape[1:] != x.shape[1:] or given.shape[0] not in (1, x.shape[0]):
            raise InvalidInput(
                f"{type(self).__name__}: beside {tuple(x.shape)}, queries and keys are of one sequence or of "
                f"as many, of the same length and channels, got {tuple(given.shape)}"
            )
        return given
