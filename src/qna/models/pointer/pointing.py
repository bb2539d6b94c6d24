"""What networks that point at their inputs share: teacher forcing, log-probabilities, steps of one answer."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core import checks
from qna._core.errors import InvalidInput
from qna.parts.sequence_state import SequenceState

# fills answers behind their end; never a label of a step
NOTHING = -1


class ScoresCandidates(Protocol):
    """What a network that points asks of its head; `PointerHead` is one."""

    def prepare(self, candidates: Tensor) -> Tensor:
        """What depends on candidates (B, N, dim) alone, the batch first."""
        ...

    def pointed(self, query: Tensor, prepared: Tensor, mask: Tensor) -> Tensor:
        """Logits (B, M, N) of queries (B, M, dim); -inf where the mask, bool (B, 1, N), is False."""
        ...


class PointsAtInputs(nn.Module):
    """An encoder of N inputs and a decoder that points at one of them each step (Vinyals et al., NIPS 2015).

    ::

        e_1 .. e_N = encoder(P_1 .. P_N)        d_i = decoder(start, P_{C_1}, .., P_{C_i-1})
        p(C_i | C_1 .. C_i-1, P) = softmax_j u(e_j, d_i)        the head's logits, (eq. 3)

    What a step chose is the next step's input, as it is and without an embedding: no blend of the e_j goes
    into the decoder. With `ends` there is one candidate more, the last column of the logits: to stop. Its
    vector and the start input are learned; the paper has symbols for both and says no more of them.

    The decoder is free in what it points at, twice at one input included, in training as in the paper:
    what makes an answer valid is a matter of the search (`qna.models.pointer.search`).

    Args:
        in_dim: numbers of an input.
        dim: channels of encoder and decoder states.
        head: a module that scores candidates as `ScoresCandidates` says, a `PointerHead` or alike.
        ends: whether answers end by a choice; False where every answer has as many steps as inputs.
    """

    def __init__(self, in_dim: int, dim: int, head: nn.Module, *, ends: bool):
        super().__init__()
        checks.positive(type(self).__name__, in_dim=in_dim, dim=dim)
        self.in_dim, self.dim, self.ends, self.head = in_dim, dim, ends, head
        self.start = nn.Parameter(torch.empty(in_dim))
        self.end = nn.Parameter(torch.empty(dim)) if ends else None

    @abstractmethod
    def encode(self, points: Tensor, lengths: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Candidates (B, N, dim) of inputs (B, N, in_dim), and what the decoder begins with, the batch first.

        What lies behind the `lengths` of a sample must change nothing of what lies before.
        """

    @abstractmethod
    def decode(self, inputs: Tensor, state: SequenceState) -> tuple[Tensor, dict[str, Tensor]]:
        """Decoder states (B, M, dim) of the next M inputs (B, M, in_dim), and what goes on from them."""

    @property
    @abstractmethod
    def configuration(self) -> str:
        """By which its states are known."""

    @property
    def _scores(self) -> ScoresCandidates:
        return cast(ScoresCandidates, self.head)

    def forward(self, points: Tensor, answers: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits of every step when all steps before it chose what `answers` says (teacher forcing).

        Args:
            points: (B, N, in_dim).
            answers: int64 (B, T), indices of points, -1 behind the end of an answer.
            lengths: int64 (B,), points of each sample where some have fewer than N; None for N.

        Returns:
            (B, T + 1, N + 1), the last column to stop; (B, T, N) of a network whose answers do not end by a
            choice. What lies behind the end of an answer says nothing.
        """
        state = self.init_state(points, lengths)
        self._check_answers(points, answers, lengths)
        before = answers if self.ends else answers[:, :-1]
        return self.step(before, state)[0][:, : answers.shape[1] + self.ends]

    def labels(self, answers: Tensor, inputs: int) -> Tensor:
        """What each step of `forward` should choose: the answer, then to stop, -1 behind that."""
        if not self.ends:
            return answers
        labels = F.pad(answers, (0, 1), value=NOTHING)
        return labels.scatter(1, (answers != NOTHING).sum(1, keepdim=True), inputs)

    def log_prob(self, points: Tensor, answers: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Of whole answers, their end included: (B,), the sum of the steps' log-probabilities."""
        return -self._surprise(points, answers, lengths)[0].sum(1)

    def loss(self, points: Tensor, answers: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Cross-entropy, the mean over all steps of all samples."""
        surprise, counted = self._surprise(points, answers, lengths)
        return surprise.sum() / counted.sum().clamp(min=1)

    def init_state(self, points: Tensor, lengths: Tensor | None = None) -> SequenceState:
        """What is known before the first step: the encoded inputs, and what the head makes of them alone.

        A value: `state.select(rows)` gives that of other samples, or of one sample for several answers.
        """
        owner = type(self).__name__
        if points.ndim != 3 or points.shape[2] != self.in_dim or points.shape[1] == 0:
            raise InvalidInput(
                f"{owner}: points must be (B, N, {self.in_dim}) with N at least 1, got {tuple(points.shape)}"
            )
        kind = points.device.type
        # a device without autocast, as meta is, may not be asked
        autocast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        if not autocast and points.dtype != self.start.dtype:
            raise InvalidInput(
                f"{owner}: points must be {self.start.dtype} as its weights are, got {points.dtype}"
            )
        batch, count = points.shape[:2]
        allowed = torch.ones(batch, 1, count + self.ends, dtype=torch.bool, device=points.device)
        if lengths is not None:
            if lengths.shape != (batch,) or lengths.is_floating_point():
                raise InvalidInput(
                    f"{owner}: lengths must be whole numbers ({batch},), got {lengths.dtype} "
                    f"{tuple(lengths.shape)}"
                )
            if batch and not 1 <= int(lengths.min()) <= int(lengths.max()) <= count:
                raise InvalidInput(
                    f"{owner}: lengths must be from 1 to N = {count}, got {int(lengths.min())} to "
                    f"{int(lengths.max())}"
                )
            allowed[:, 0, :count] = torch.arange(count, device=points.device) < lengths[:, None]
        candidates, held = self.encode(points, lengths)
        if self.end is not None:
            candidates = torch.cat([candidates, self.end.expand(batch, 1, -1)], 1)
        held |= {"points": points, "prepared": self._scores.prepare(candidates), "allowed": allowed}
        return SequenceState(self.configuration, batch, 0, held)

    def step(self, chosen: Tensor, state: SequenceState) -> tuple[Tensor, SequenceState]:
        """Logits of the next steps, and the state after them.

        Args:
            chosen: int64 (B, M), what the steps before chose; of a new state those behind the start: M = 0
                gives the first step alone.
            state: of `init_state` or of another step.

        Returns:
            (B, M', N + 1) or (B, M', N), M' = M + 1 for a new state, else M.
        """
        state.check(self.configuration, chosen.shape[0])
        count = state["points"].shape[1]
        if not torch.compiler.is_compiling() and not chosen.is_meta and bool((chosen >= count).any()):
            raise InvalidInput(
                f"{type(self).__name__}: a step goes on from a point, of which there are {count}, got "
                f"{int(chosen.max())}"
            )
        inputs = state["points"].gather(1, chosen.clamp(min=0)[..., None].expand(-1, -1, self.in_dim))
        if state.length == 0:
            start = self.start.expand(chosen.shape[0], 1, -1)
            inputs = torch.cat([start.to(inputs.dtype), inputs], 1)
        decoded, held = self.decode(inputs, state)
        logits = self._scores.pointed(decoded, state["prepared"], state["allowed"])
        return logits, state.after(inputs.shape[1], **held)

    def _surprise(self, points: Tensor, answers: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """Negative log-probability of each step, 0 behind the end, and which steps are none: (B, steps)."""
        logits = self(points, answers, lengths)
        labels = self.labels(answers, points.shape[1])
        return F.cross_entropy(logits.mT, labels, reduction="none", ignore_index=NOTHING), labels != NOTHING

    def _check_answers(self, points: Tensor, answers: Tensor, lengths: Tensor | None) -> None:
        owner = type(self).__name__
        if answers.ndim != 2 or answers.dtype != torch.int64 or len(answers) != len(points):
            raise InvalidInput(
                f"{owner}: answers must be int64 ({len(points)}, T), got {answers.dtype} "
                f"{tuple(answers.shape)}"
            )
        if torch.compiler.is_compiling() or answers.is_meta:
            return
        most = points.shape[1] if lengths is None else lengths[:, None]
        if bool(((answers >= most) | (answers < NOTHING)).any()):
            raise InvalidInput(
                f"{owner}: answers must be indices of the points of their sample, or -1 behind the end"
            )
        if bool(((answers[:, 1:] != NOTHING) & (answers[:, :-1] == NOTHING)).any()):
            raise InvalidInput(f"{owner}: an answer goes on behind its end: -1 only fills the rest of a row")
