"""Causal attention inside groups of positions, which begin half a group later in some heads; sinks beside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qna._core import checks
from qna._core.errors import InvalidInput
from qna.parts.attend import transformed
from qna.parts.causal_attend import attend_before, attend_where
from qna.parts.kv_cache import KeepSinksAndLast
from qna.parts.open_size import is_open


@dataclass(frozen=True)
class KeepGroups(KeepSinksAndLast):
    """Positions attend inside their group of `group`, and the first `sinks`; what no later one sees goes.

    In the last `shifted` heads of queries groups begin at ``group // 2``, in the others at 0. Shifted heads
    so have a first group of half the size, and at its end a sequence has what is left; nothing is wrapped,
    which would show first positions the last. Query p sees ``begin(p) <= k <= p`` and ``k < sinks``, with
    ``begin(p) = s + floor((p - s) / group) group`` for the shift s of its head, and 0 before s. As the policy
    of attention that is trained already, any is told how many heads are to be shifted.

    Args:
        group: positions of a group.
        shifted: heads of queries.
        sinks: first positions that all later ones see.
    """

    group: int
    shifted: int = 0
    sinks: int = 0

    def __post_init__(self):
        checks.positive(type(self).__name__, group=self.group)
        checks.natural(type(self).__name__, shifted=self.shifted, sinks=self.sinks)

    def shifts(self, heads: int) -> list[tuple[int, int, int]]:
        """First and last head, and where their groups begin, of those that have any.

        Raises:
            InvalidInput: there are fewer heads than are to be shifted.
        """
        if self.shifted > heads:
            raise InvalidInput(
                f"{type(self).__name__} shifts {self.shifted} heads of queries, and there are {heads}; shift "
                "fewer"
            )
        here = ((0, heads - self.shifted, 0), (heads - self.shifted, heads, self.group // 2))
        return [part for part in here if part[0] < part[1]]

    def begin(self, position: Any, shift: int) -> Any:
        """First position of the group of a position, a number or a tensor."""
        begun = shift + (position - shift) // self.group * self.group
        return begun.clamp(min=0) if isinstance(begun, Tensor) else max(0, begun)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, before: int) -> Tensor:
        """As `KeepSinksAndLast.attend`, of heads that share a shift at a time."""
        heads = query.shape[1]
        by_mask = transformed() or any(map(is_open, (before, query.shape[-2], key.shape[-2])))
        attend = self._masked if by_mask else self._in_groups
        parts = []
        for first, last, shift in self.shifts(heads):
            keys, values = (_of_heads(t, first, last, heads) for t in (key, value))
            parts.append(attend(query[:, first:last], keys, values, before, shift))
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def last(self, length: int) -> int:
        """Back to where the group of the next position begins, in the heads where it does so first."""
        # whether any heads are not shifted, a policy cannot know
        shifts = (0, self.group // 2) if self.shifted else (0,)
        return length - min(self.begin(length, shift) for shift in shifts)

    def pairs(self, length: int, shift: int) -> int:
        """Pairs of a query and a key that it sees, of a head."""
        total = 0
        for first in range(shift - self.group if shift else 0, length, self.group):
            begin, end = max(0, first), min(first + self.group, length)
            inside = max(0, end - begin)
            total += inside * (inside + 1) // 2 + inside * min(begin, self.sinks)
        return total

    def _in_groups(self, query: Tensor, key: Tensor, value: Tensor, before: int, shift: int) -> Tensor:
        """Every group by itself, whole ones at once: no score is computed that is not used."""
        n, m, sinks = query.shape[-2], key.shape[-2], self.sinks
        total = before + n
        missing = total - m

        def met(begin: int, end: int) -> tuple[Tensor, Tensor]:
            """Keys and values of the positions, and of the sinks before them."""
            near = [t[:, :, begin - missing : end - missing] for t in (key, value)]
            if sinks:
                near = [torch.cat([t[:, :, :sinks], u], 2) for t, u in zip((key, value), near, strict=True)]
            return near[0], near[1]

        parts, at = [], before
        # groups that begin among the sinks see all that came before
        dense = self.begin(sinks, shift) + self.group if sinks and sinks >= shift else shift
        if at < dense:
            end = min(dense, total)
            parts.append(attend_before(query[:, :, : end - at], key[:, :, :end], value[:, :, :end]))
            at = end
        if at < total and (begin := self.begin(at, shift)) < at:
            end = min(begin + self.group, total)
            parts.append(attend_before(query[:, :, at - before : end - before], *met(begin, end)))
            at = end
        if whole := (total - at) // self.group:
            end = at + whole * self.group
            parts.append(
                self._whole_groups(
                    query[:, :, at - before : end - before],
                    *(t[:, :, at - missing : end - missing] for t in (key, value)),
                    *(t[:, :, :sinks] for t in (key, value)),
                )
            )
            at = end
        if at < total:
            parts.append(attend_before(query[:, :, at - before :], *met(at, total)))
        return parts[0] if len(parts) == 1 else torch.cat(parts, 2)

    def _whole_groups(
        self, query: Tensor, key: Tensor, value: Tensor, sink_key: Tensor, sink_value: Tensor
    ) -> Tensor:
        """Groups as further sequences of the batch."""
        whole = query.shape[2] // self.group

        def apart(t: Tensor) -> Tensor:
            return t.unflatten(2, (whole, self.group)).transpose(1, 2).flatten(0, 1)

        keys, values = apart(key), apart(value)
        if self.sinks:
            keys, values = (
                torch.cat([sink.repeat_interleave(whole, 0), t], 2)
                for sink, t in ((sink_key, keys), (sink_value, values))
            )
        attended = attend_before(apart(query), keys, values)
        return attended.unflatten(0, (-1, whole)).transpose(1, 2).flatten(2, 3)

    def _masked(self, query: Tensor, key: Tensor, value: Tensor, before: int, shift: int) -> Tensor:
        """The same by a mask over all that is kept."""
        n, m = query.shape[-2], key.shape[-2]
        q = torch.arange(n, device=query.device) + before
        k = torch.arange(m, device=query.device)
        k = torch.where(k < self.sinks, k, k + (before + n - m))
        near = k >= self.begin(q, shift)[:, None]
        seen = (k <= q[:, None]) & (near | (k < self.sinks))
        return attend_where(query, key, value, seen)


def attend_wrapped(query: Tensor, key: Tensor, value: Tensor, *, group: int, shifted: int) -> Tensor:
    """Attention inside groups as LongLoRA's form without FlashAttention has it; **not causal**.

    Of the last `shifted` heads queries, keys and values are rolled back by half a group, attended in groups,
    and what comes out is rolled forth: the last group holds the last and the first half group, and the first
    half group sees the last one, which comes later. Of an odd group the authors roll back by one more than
    forth; here both are ``group // 2``.

    Args:
        query: (B, h, N, d), N a multiple of `group`.
        key: (B, h', N, d).
        value: (B, h', N, e).
        group: positions of a group.
        shifted: heads of queries.
    """
    heads, plain = query.shape[1], KeepGroups(group)
    parts = []
    for first, last, shift in KeepGroups(group, shifted).shifts(heads):
        keys, values = (_of_heads(t, first, last, heads).roll(-shift, 2) for t in (key, value))
        attended = plain.attend(query[:, first:last].roll(-shift, 2), keys, values, 0)
        parts.append(attended.roll(shift, 2))
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def with_first_seeing_all(attended: Tensor, query: Tensor, key: Tensor, value: Tensor, first: int) -> Tensor:
    """What was attended, (B, h, N, e), the first positions over the whole sequence; **not causal**."""
    asking = query[:, :, :first]
    seen = torch.ones((), dtype=torch.bool, device=query.device).expand(asking.shape[-2], key.shape[-2])
    return torch.cat([attend_where(asking, key, value, seen), attended[:, :, first:]], 2)


def _of_heads(t: Tensor, first: int, last: int, heads: int) -> Tensor:
    """Keys or values (B, h', m, d) for heads `first` to `last` of `heads`; repeated where sharing is cut."""
    shared = heads // t.shape[1]
    if first % shared == 0 and last % shared == 0:
        return t[:, first // shared : last // shared]
    return t.repeat_interleave(shared, 1)[:, first:last]
