"""Answers of a network that points: the likeliest step by step, or the likeliest of several side by side."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qna._core import checks
from qna._core.errors import InvalidInput
from qna.models.pointer.pointing import NOTHING, PointsAtInputs


@dataclass(frozen=True)
class Pointed:
    """Answers.

    Attributes:
        answers: int64 (B, T), indices of points, -1 behind the end.
        log_prob: float64 (B,), what the network gives the whole answer, as `PointsAtInputs.log_prob`.
    """

    answers: Tensor
    log_prob: Tensor


@torch.no_grad()
def point(
    network: PointsAtInputs,
    points: Tensor,
    lengths: Tensor | None = None,
    *,
    beams: int = 1,
    once: bool | None = None,
    most: int | None = None,
) -> Pointed:
    """Search for a likely answer of each sample, `beams` of them side by side.

    A step extends every answer by every candidate and keeps the likeliest `beams`; an answer that ended stays
    among them as it is. One beam takes the likeliest candidate of each step (greedy); beams without bound
    find the likeliest answer of all. Probabilities are the network's own: what is not valid is left out, and
    what it would have had is not shared out among the rest.

    Args:
        network: which points.
        points: (B, N, in_dim).
        lengths: int64 (B,), points of each sample where some have fewer than N.
        beams: answers that go on.
        once: point at no input twice; None for networks whose answers do not end by a choice alone: theirs
            then name every input once, as tours do.
        most: choices of an answer at most, after which it has to end; None for N. It is of networks whose
            answers end by a choice.

    Raises:
        InvalidInput: as `PointsAtInputs.init_state`, `beams` or `most` below 1, or `most` where answers do
            not end by a choice.
    """
    once = not network.ends if once is None else once
    if most is not None and not network.ends:
        raise InvalidInput(f"point: answers of this network have one choice for each input, got most={most}")
    state = network.init_state(points, lengths)
    batch, count = points.shape[:2]
    most = count if most is None else most
    checks.positive("point", beams=beams, most=most)
    sizes = torch.full((batch,), count) if lengths is None else lengths
    sizes, end = sizes.to(points.device), count
    # one answer at first: copies of it would go on as copies
    made = _Answers(points, count + network.ends)
    for step in range(most + network.ends):
        if not network.ends:
            made.done = (sizes <= step)[:, None].expand_as(made.done)
        if bool(made.done.all()):
            break
        logits, state = network.step(made.last, state)
        gain = logits[:, -1].double().log_softmax(-1).unflatten(0, made.done.shape)
        if once:
            gain = gain.masked_fill(made.used, -torch.inf)
        if network.ends and step == most:
            gain[..., :end] = -torch.inf
        state = state.select(made.extend(gain, beams))
        if network.ends:
            made.done = made.done | (made.answers[..., -1] == end)
    answers = made.answers[:, 0].masked_fill(made.answers[:, 0] == end, NOTHING)
    longest = int((answers != NOTHING).sum(1).max()) if batch else 0
    return Pointed(answers[:, :longest], made.score[:, 0])


class _Answers:
    """Answers on the way, (B, K) of them, the likeliest of each sample first.

    Attributes:
        inputs: that there are.
        answers: int64 (B, K, T).
        score: float64 (B, K), log-probabilities.
        done: bool (B, K), which have ended.
        used: bool (B, K, candidates), what each has pointed at.
    """

    def __init__(self, points: Tensor, candidates: int):
        batch, self.inputs = points.shape[:2]
        place = points.device
        self.answers = torch.zeros(batch, 1, 0, dtype=torch.int64, device=place)
        self.score = torch.zeros(batch, 1, dtype=torch.float64, device=place)
        self.done = torch.zeros(batch, 1, dtype=torch.bool, device=place)
        self.used = torch.zeros(batch, 1, candidates, dtype=torch.bool, device=place)

    @property
    def last(self) -> Tensor:
        """The choices that a step goes on from: (B K, 1), of new answers (B K, 0)."""
        # whoever ended is not asked any more: any input will do
        return self.answers[..., -1:].flatten(0, 1).clamp(0, self.inputs - 1)

    def extend(self, gain: Tensor, beams: int) -> Tensor:
        """Keep the likeliest `beams` extensions of log-probabilities (B, K, candidates).

        Returns:
            int64 (B K'), the row that each goes on from.
        """
        batch, width, candidates = gain.shape
        # an answer that ended goes on in one way, which is written in the first column
        stays = torch.full_like(gain, -torch.inf)
        stays[..., 0] = 0.0
        gain = torch.where(self.done[..., None], stays, gain)
        total = (self.score[..., None] + gain).flatten(1)
        self.score, best = total.topk(min(beams, total.shape[1]), dim=1)
        origin, choice = best // candidates, best % candidates
        done = self.done.gather(1, origin)
        choice = choice.masked_fill(done, NOTHING)
        before = self.answers.gather(1, origin[..., None].expand(-1, -1, self.answers.shape[2]))
        self.answers, self.done = torch.cat([before, choice[..., None]], 2), done
        used = self.used.gather(1, origin[..., None].expand(-1, -1, candidates))
        marked = used.scatter(2, choice.clamp(min=0)[..., None], True)
        self.used = torch.where(done[..., None], used, marked)
        return (origin + width * torch.arange(batch, device=gain.device)[:, None]).flatten()
