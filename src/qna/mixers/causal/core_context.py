"""Core context aware attention: near positions one by one, far ones as a core token for each group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from qna._core import checks
from qna._core.about import About
from qna._core.errors import InvalidInput, check_choice
from qna.mixers.causal.softmax import SoftmaxAttention
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.attend import transformed
from qna.parts.causal_attend import attend_where
from qna.parts.growing import Growing
from qna.parts.kv_cache import Cache, CachePolicy, CacheShape
from qna.parts.open_size import is_open
from qna.parts.rotary import HALVES

ATTENTION, MEAN, MAX = "attention", "mean", "max"
POOLS = (ATTENTION, MEAN, MAX)
# queries that are masked at once
_BLOCK = 512


class CoreContextAttention1d(SoftmaxAttention):
    """CCA-Attention (Chen et al., ICML 2025, arXiv 2412.12465): one softmax over core and local tokens.

    Positions are grouped by `group` from the first on. Query i, counted from 1, sees the core tokens of the
    first ``m = max(0, floor((i - window) / group))`` groups and the positions ``m group + 1`` to i: each that
    came before it exactly once, in its group or alone. The core token of a group is the mean of its keys, and
    of its values, weighted by what the query of its last position attends to inside it::

        w = softmax(q_last k_group^T / sqrt(d)),   k_core = w k_group,   v_core = w v_group

    in each head. Keys are turned to their positions before, as in the authors' code; the paper pools the
    input, which is the same where keys are not turned and have no bias. A group counts as one key, without
    the logarithm of its size. Of N positions with C channels, h heads of d and g of keys it costs ``2 N C d
    (h + g)`` multiply-adds, ``3 N h d`` for core tokens and at most ``2 N (N / (2 group) + window + group) h
    d``; the state holds ``2 h d`` numbers for each group and ``2 g d`` for each of the last ``window + group
    - 1`` positions.

    Windows and groups may be others in inference than in training. The authors' kernel covers each position
    once only where groups divide the window; here it is so for all. Their cache pools the first group again
    in the first two layers while it decodes, and is not followed in that.

    Args:
        dim: channels of input and output.
        window: positions that a query sees one by one at least, its own among them; 1,024 as published.
        group: positions of a core token; 16 as published.
        pool: what weights a group: "attention", as published, or "mean" or "max" of each channel, which the
            authors' code has too; their core tokens are shared by the heads of a group of queries.
        num_heads: this and the following are those of `SoftmaxAttention`.

    Raises:
        InvalidInput: a window or a group below 1, heads that do not divide.
    """

    def __init__(
        self,
        dim: int,
        *,
        window: int = 1024,
        group: int = 16,
        pool: str = ATTENTION,
        num_heads: int,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        bias: bool = False,
        rope_base: float | None = 10_000.0,
        rope_layout: str = HALVES,
        rope_scale: float = 1.0,
    ):
        super().__init__(
            dim,
            num_heads=num_heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            bias=bias,
            rope_base=rope_base,
            rope_layout=rope_layout,
            rope_scale=rope_scale,
        )
        shared = self.heads.num_heads // self.heads.kv_heads
        self._policy = KeepCores(window, group, pool, shared)

    @property
    def policy(self) -> CachePolicy:
        """Core tokens and the near positions."""
        return self._policy

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Over core tokens and near positions."""
        batch, heads, _, d = key.shape
        shape = CacheShape(batch, heads, d, d, key.device, key.dtype)
        return self._policy.empty(shape).attend(query, key, value)[0]

    def pairs(self, length: int) -> int:
        """Core tokens and near positions, of all queries."""
        window, group = self._policy.window, self._policy.group
        cores = (max(0, i - window) // group for i in range(1, length + 1))
        return sum(m + i - m * group for i, m in enumerate(cores, start=1))

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for sequences of `size` = (B, N, dim), those of core tokens included."""
        pooled = size[1] // self._policy.group * self._policy.group
        sums = 3 if self._policy.pool == ATTENTION else 0
        inner = self.heads.num_heads * self.heads.head_dim
        return super().macs(size) + sums * size[0] * pooled * inner

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        policy = self._policy
        return f"{super().extra_repr()}, window={policy.window}, group={policy.group}, pool={policy.pool}"


@dataclass(frozen=True)
class KeepCores(CachePolicy):
    """Core tokens of complete groups stay, and the positions that the next query sees one by one.

    As the policy of other softmax attention it is CCA-Attention without training. Queries of later positions
    have to come with keys and values of their own, as in a step.

    Args:
        window: as of `CoreContextAttention1d`.
        group: the same.
        pool: the same.
        shared: heads of queries for each head of keys.
    """

    window: int
    group: int
    pool: str = ATTENTION
    shared: int = 1

    def __post_init__(self):
        checks.positive(type(self).__name__, window=self.window, group=self.group, shared=self.shared)
        check_choice("pool of core tokens", self.pool, POOLS)

    def empty(self, shape: CacheShape) -> Cache:
        """Nothing yet."""
        keys, values = shape.nothing()
        core_keys, core_values = replace(shape, heads=self._core_heads(shape)).nothing()
        return _Cores(self, core_keys, core_values, keys, values, 0)

    def kept(self, length: int) -> int:
        """Positions that each head keeps one by one."""
        return length - self.group * self.whole(length)

    def state_bytes(self, shape: CacheShape, length: int) -> int:
        """Bytes of core tokens and positions."""
        cores = self._core_heads(shape) * (length // self.group)
        numbers = cores + shape.heads * self.kept(length)
        return shape.batch * numbers * (shape.key_dim + shape.value_dim) * shape.dtype.itemsize

    def whole(self, length: Any) -> Any:
        """Groups that the query behind `length` positions sees as core tokens, each of a tensor or a
        number."""
        groups = (length + 1 - self.window) // self.group
        return groups.clamp(min=0) if isinstance(groups, Tensor) else max(0, groups)

    def _core_heads(self, shape: CacheShape) -> int:
        return shape.heads * (self.shared if self.pool == ATTENTION else 1)


@dataclass(frozen=True)
class _Cores(Cache):
    """Core tokens, and the positions from `group * whole(length)` on."""

    policy: KeepCores
    core_keys: Growing
    core_values: Growing
    keys: Growing
    values: Growing
    length: int

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, _Cores]:
        policy, n = self.policy, query.shape[-2]
        if query.shape[1] != policy.shared * key.shape[1]:
            raise InvalidInput(
                f"this cache is of {policy.shared} heads of queries for each head of keys, got "
                f"{query.shape[1]} and {key.shape[1]}; name shared={query.shape[1] // key.shape[1]}"
            )
        keys, values = (
            kept.append(new.to(kept.tensor.dtype)) for kept, new in ((self.keys, key), (self.values, value))
        )
        cores = self._with_new_cores(query, keys, values)
        every = [t.tensor.to(query.dtype) for t in (*cores, keys, values)]
        attended = _attend(policy, query, (every[0], every[1]), (every[2], every[3]), self.length)
        kept = policy.kept(self.length + n)
        return attended, _Cores(policy, *cores, keys.last(kept), values.last(kept), self.length + n)

    def _with_new_cores(self, query: Tensor, keys: Growing, values: Growing) -> tuple[Growing, Growing]:
        """Core tokens with those of groups that are complete now: their last queries are among the new."""
        group, before = self.policy.group, self.length // self.policy.group
        new = (self.length + query.shape[-2]) // group - before
        if not is_open(new) and not new:
            return self.core_keys, self.core_values
        start = before * group - (self.length - len(self.keys))
        members = [
            t.tensor[:, :, start : start + new * group].unflatten(2, (new, group)) for t in (keys, values)
        ]
        if self.policy.pool == MEAN:
            pooled = [t.mean(3) for t in members]
        elif self.policy.pool == MAX:
            pooled = [t.amax(3) for t in members]
        else:
            last = query[:, :, (before + 1) * group - 1 - self.length :: group][:, :, :new]
            pooled = _by_attention(last, *members)
        made = (
            kept.append(t.to(kept.tensor.dtype))
            for kept, t in zip((self.core_keys, self.core_values), pooled, strict=True)
        )
        return tuple(made)  # pyright: ignore[reportReturnType]

    def select(self, rows: Tensor) -> _Cores:
        return replace(
            self,
            core_keys=self.core_keys.select(rows),
            core_values=self.core_values.select(rows),
            keys=self.keys.select(rows),
            values=self.values.select(rows),
        )

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in (self.core_keys, self.core_values, self.keys, self.values))


def _by_attention(last: Tensor, keys: Tensor, values: Tensor) -> list[Tensor]:
    """Groups weighted by what their last queries attend to.

    Args:
        last: (B, h, m, d).
        keys: (B, h', m, group, d).
        values: (B, h', m, group, e).

    Returns:
        (B, h, m, d) and (B, h, m, e).
    """
    # heads of queries that share keys are rows of one product
    rows = last.unflatten(1, (keys.shape[1], -1)).transpose(2, 3)
    scores = rows @ keys.to(rows.dtype).transpose(-1, -2) * rows.shape[-1] ** -0.5
    exact = torch.promote_types(scores.dtype, torch.float32)
    shares = scores.to(exact).softmax(-1).to(rows.dtype)
    return [(shares @ t.to(rows.dtype)).transpose(2, 3).flatten(1, 2) for t in (keys, values)]


def _attend(
    policy: KeepCores,
    query: Tensor,
    cores: tuple[Tensor, Tensor],
    single: tuple[Tensor, Tensor],
    length: int,
) -> Tensor:
    """Queries of the n positions behind `length`, over core tokens and single positions that end with theirs.

    Args:
        policy: which of both each query sees.
        query: (B, h, n, d).
        cores: keys and values of core tokens.
        single: keys and values of the last m positions.
        length: positions before the queries'.
    """
    n, m = query.shape[-2], single[0].shape[-2]
    first = length + n - m
    whole = torch.compiler.is_compiling() or transformed() or is_open(m) or is_open(n)
    parts = []
    block = n if whole else _BLOCK
    for start in range(0, n, block):
        stop = n if whole else min(start + block, n)
        places = torch.arange(start, stop, device=query.device) + length
        met = policy.whole(places)
        # the first query sees the fewest core tokens and the farthest single position, the last the most
        begin = 0 if whole else policy.group * policy.whole(length + start) - first
        end = stop if whole else length + stop - first
        end = m if whole else end
        met_at_most = cores[0].shape[-2] if whole else policy.whole(length + stop - 1)
        here = torch.arange(begin, end, device=query.device) + first
        near = (here >= (policy.group * met)[:, None]) & (here <= places[:, None])
        far = torch.arange(met_at_most, device=query.device) < met[:, None]
        both_keys, both_values = (
            torch.cat([_heads(t[:, :, :met_at_most], query), _heads(u[:, :, begin:end], query)], 2)
            for t, u in zip(cores, single, strict=True)
        )
        seen = torch.cat([far, near], 1)
        parts.append(attend_where(query[:, :, start:stop], both_keys, both_values, seen))
    return parts[0] if len(parts) == 1 else torch.cat(parts, -2)


def _heads(t: Tensor, query: Tensor) -> Tensor:
    """Keys or values with a head for each of the queries'."""
    shared = query.shape[1] // t.shape[1]
    return t if shared == 1 else t.repeat_interleave(shared, 1)


ROW = MixerRow(
    CoreContextAttention1d,
    About(
        title="Core Context Aware Transformers for Long Context Language Modeling",
        authors="Chen, You, Zhang et al.",
        venue="ICML 2025",
        arxiv="2412.12465",
        read="the authors' code, chenyaofo/CCA-Attention at 052cc8e (no licence), and the paper's equations",
        differs="core tokens are made when a group is complete and not when it leaves the window, with the "
        "same values; the window need not be a multiple of a group; decoding equals the whole sequence in "
        "every layer; no dropout of attention",
        status="exact",
    ),
    Example(
        (9,),
        {"num_heads": 4, "kv_heads": 2, "window": 3, "group": 2},
        long={"window": 1024, "group": 16},
    ),
    Traits(1, heads=True, causal=True),
)
