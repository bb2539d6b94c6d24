"""Attention whose exponential is its series up to the square: sums stand for all that came before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from qna._core import checks
from qna._core.errors import check_choice
from qna.mixers.causal.deconstructed.about import ABOUT
from qna.mixers.causal.mixer import CausalMixer
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.grouped_heads import GroupedHeads
from qna.parts.initializers import init_linear_
from qna.parts.linear import apply_linear
from qna.parts.open_size import is_open
from qna.parts.precision import without_autocast
from qna.parts.rotary import HALVES, Rotary
from qna.parts.rows import PositionRows, matrix_rows
from qna.parts.sequence_state import SequenceState

# what each order is divided by, and what the second one is a product of
SHARED, ORDERS = "shared", "orders"
PAIRS, CHANNELS = "pairs", "channels"
# positions whose features are there at once, where nothing records a graph
_AT_ONCE = 2048


class TaylorAttention1d(CausalMixer):
    """The "Approximate" attention: a series in the place of the exponential, summed by position::

        s_ij = q_i . k_j / sqrt(d)        w(s) = 1 + s + s^2 / 2
        o_i = sum_(j <= i) w(s_ij) v_j / sum_(j <= i) w(s_ij)

    (Xue et al., arXiv 2510.11602, equation 6, after Based; Arora et al., arXiv 2402.18668). w is at least
    1/2, so that no denominator vanishes. Each order is a product of features of q and of k, so that sums of
    features, and of features times values, stand for all that came before: of a head with d channels 1, d,
    and d (d + 1) / 2 products of two, each pair once.

    The paper's appendix prints another recurrence (equations 14 to 17), of which both parts can be chosen:
    `normalise="orders"` divides each order by its own sum and adds the three (rows then sum to 3, and the
    first order's denominator, q . sum k, may vanish), and `square="channels"` takes ``sum_c q_c^2 k_c^2`` for
    the square, which is what its table of caches, ``6 B C + 4 B C^2 / h`` bytes in half precision, counts.

    With chunks of c, F features of an order and h heads of d, of which g are of keys, it costs
    ``N (C d (2 h + 2 g) + h c (2 d) + (h + g) d sum F)`` multiply-adds and the denominators; sums are in
    single precision at least.

    Args:
        dim: channels of input and output.
        num_heads: heads of queries; divides `dim`.
        kv_heads: heads of keys and values, a divisor of `num_heads`; None for as many.
        normalise: "shared", one denominator for all orders, or "orders".
        square: "pairs", the square of the product, or "channels".
        rope_base: of rotary positions, as standard attention has them; None for none, as Based has.
        chunk: positions whose pairs are formed; of the result it changes the rounding alone.
        bias: whether the four linear maps have one.

    Raises:
        InvalidInput: heads do not divide, or `chunk` is not positive.
        UnknownName: another way, with the nearest names.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        kv_heads: int | None = None,
        normalise: str = SHARED,
        square: str = PAIRS,
        rope_base: float | None = 10_000.0,
        chunk: int = 64,
        bias: bool = False,
    ):
        super().__init__()
        name = type(self).__name__
        checks.positive(name, chunk=chunk)
        self.normalise = check_choice("way to normalise", normalise, (SHARED, ORDERS))
        self.square = check_choice("square", square, (PAIRS, CHANNELS))
        self.dim = self.out_dim = dim
        self.chunk = chunk
        self.heads = GroupedHeads(name, dim, num_heads=num_heads, kv_heads=kv_heads, bias=bias)
        self.rotary = None if rope_base is None else Rotary(self.heads.head_dim, rope_base, HALVES)
        self.out = nn.Linear(dim, dim, bias=bias)
        init_linear_(self.out)

    @property
    def features(self) -> tuple[int, int, int]:
        """Features of a head, by order."""
        d = self.heads.head_dim
        return 1, d, d * (d + 1) // 2 if self.square == PAIRS else d

    def begin(self, batch: int, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
        """Sums of nothing; how many positions there were is known without one."""
        heads, d = self.heads.kv_heads, self.heads.head_dim
        exact = torch.promote_types(dtype, torch.float32)
        count = sum(self.features)
        return {
            "sums": torch.zeros(batch, heads, count, d, device=device, dtype=exact),
            "keys": torch.zeros(batch, heads, count - 1, device=device, dtype=exact),
        }

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, dim) -> (B, N, dim); a single chunk has pairs alone and needs no features."""
        if is_open(x.shape[1]) or x.shape[1] > self.chunk:
            return super().forward(x)
        self.check(x)
        query, key, value = self._projected(x, 0)
        with without_autocast(x.device):
            attended = self._shown(query, key) @ self._for_each_head(value)
        y = attended.transpose(1, 2).to(x.dtype).reshape(x.shape)
        return apply_linear(self.out, y)

    def advance(self, x: Tensor, state: SequenceState) -> tuple[Tensor, SequenceState]:
        """Chunks at once, of so many positions as their features have room."""
        length = x.shape[1]
        if is_open(length) or torch.compiler.is_compiling() or length <= _AT_ONCE:
            return self._advance(x, state)
        made = []
        for part in x.split(_AT_ONCE, 1):
            y, state = self._advance(part, state)
            made.append(y)
        return torch.cat(made, 1), state

    def _advance(self, x: Tensor, state: SequenceState) -> tuple[Tensor, SequenceState]:
        length = x.shape[1]
        query, key, value = self._projected(x, state.length)
        dtype, exact = x.dtype, query.dtype
        chunk = self.chunk if is_open(length) else min(self.chunk, length)
        more = -length % chunk
        groups = self.heads.num_heads // self.heads.kv_heads
        with without_autocast(x.device):
            # positions that only fill up have no value, and a last channel of ones counts those that are
            value = torch.cat([value, torch.ones_like(value[..., :1])], 3)
            query, key, value = (
                torch.cat([t, t.new_zeros(*t.shape[:2], more, t.shape[3])], 2).unflatten(2, (-1, chunk))
                for t in (query, key, value)
            )
            # (B, g, h / g, n, c, d): heads that share keys are rows of one product
            query = query.unflatten(1, (-1, groups))
            held = self._held(state, exact)
            orders, after = [], []
            for order, (now, then) in enumerate(zip(self._within(query, key), held, strict=True)):
                of_key = self._featured(key, order)
                sums = _running(then, of_key.transpose(-1, -2) @ value)
                of_query = self._featured(query, order)
                met = now.tril() @ value[:, :, None] + of_query @ sums[:, :, None, :-1]
                # what fills up met nothing of some orders, and would be 0 / 0
                orders.append(met.flatten(3, 4)[:, :, :, :length])
                after.append(sums[:, :, -1])
            attended = self._normalised(orders)
        # filled positions come last, so what is after all of them is what is after the sequence
        sums = torch.cat([t[..., :-1] for t in after], 2)
        keys = torch.cat([t[..., -1] for t in after[1:]], 2)
        y = attended.flatten(1, 2).transpose(1, 2).to(dtype).reshape(x.shape)
        return apply_linear(self.out, y), state.after(length, sums=sums, keys=keys)

    def _normalised(self, orders: Sequence[Tensor]) -> Tensor:
        """Numerators and, in the last channel, denominators of each order -> what is attended."""
        if self.normalise == SHARED:
            orders = [orders[0] + orders[1] + orders[2]]
        return torch.stack([t[..., :-1] / t[..., -1:] for t in orders]).sum(0)

    def _within(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What each order says of each pair (..., c, c) of a chunk."""
        # of heads that share keys
        key = key[:, :, None] if query.ndim == key.ndim + 1 else key
        first = query @ key.transpose(-1, -2)
        if self.square == PAIRS:
            second = first.square() / 2
        else:
            second = query.square() @ key.square().transpose(-1, -2) / 2
        return torch.ones_like(first), first, second

    def _featured(self, t: Tensor, order: int) -> Tensor:
        """(..., d) -> features of an order, whose products with those of another are that order's."""
        if order == 0:
            return torch.ones_like(t[..., :1])
        if order == 1:
            return t
        if self.square == CHANNELS:
            return t.square() * 2**-0.5
        d = t.shape[-1]
        rows, columns = torch.triu_indices(d, d, device=t.device)
        # a product of two channels stands for both orders of them
        factors = torch.ones_like(rows, dtype=t.dtype).masked_fill(rows == columns, 2**-0.5)
        return t[..., rows] * t[..., columns] * factors

    def _projected(self, x: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys, turned, the former by 1 / sqrt(d), and values; single precision at least."""
        query, key, value = self.heads(x)
        exact = torch.promote_types(value.dtype, torch.float32)
        query, key, value = (t.to(exact) for t in (query, key, value))
        if self.rotary is not None:
            turns = self.rotary.turns_from(start, x.shape[1], query)
            query, key = self.rotary.rotate(query, turns), self.rotary.rotate(key, turns)
        return query * self.heads.head_dim**-0.5, key, value

    def _held(self, state: SequenceState, exact: torch.dtype) -> list[Tensor]:
        """What is summed of each order, with its denominator as last channel: (B, g, F, d + 1)."""
        sums = state["sums"].to(exact)
        count = torch.full_like(sums[:, :, :1, 0], state.length)
        keys = torch.cat([count, state["keys"].to(exact)], 2)
        return list(torch.cat([sums, keys[..., None]], 3).split(self.features, 2))

    def attention_map(self, x: Tensor) -> Tensor:
        """What each position of `x` gets of each other, (B, h, N, N), at least in single precision."""
        self.check(x)
        query, key, _ = self._projected(x, 0)
        with without_autocast(x.device):
            return self._shown(query, key)

    def _shown(self, query: Tensor, key: Tensor) -> Tensor:
        orders = [t.tril() for t in self._within(query, self._for_each_head(key))]
        if self.normalise == SHARED:
            orders = [orders[0] + orders[1] + orders[2]]
        return torch.stack([t / t.sum(-1, keepdim=True) for t in orders]).sum(0)

    def _for_each_head(self, t: Tensor) -> Tensor:
        return t.repeat_interleave(self.heads.num_heads // self.heads.kv_heads, 1)

    def attention_rows(self, x: Tensor) -> PositionRows:
        """The same, mean over heads."""
        return matrix_rows(self.attention_map(x))

    def state_bytes(self, size: Sequence[int], dtype: torch.dtype = torch.float32) -> int:
        """Bytes of the sums of sequences of `size` = (B, N, dim), however long."""
        heads, d, count = self.heads.kv_heads, self.heads.head_dim, sum(self.features)
        numbers = size[0] * heads * (count * d + count - 1)
        return numbers * torch.promote_types(dtype, torch.float32).itemsize

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for sequences of `size` = (B, N, dim): maps, pairs inside chunks, sums.

        Without the products that features are made of.
        """
        heads, d = self.heads, self.heads.head_dim
        filled = size[0] * sum(self._filled(size[1]))
        chunk = min(self.chunk, size[1])
        maps = heads.macs(math.prod(size[:2])) + math.prod(size) * self.dim
        scores = d if self.square == PAIRS else 2 * d
        within = heads.num_heads * chunk * (scores + 3 * (d + 1))
        return maps + filled * (within + (heads.num_heads + heads.kv_heads) * sum(self.features) * (d + 1))

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: maps, features of `_AT_ONCE` positions, pairs, and sums of chunks."""
        heads, d, count = self.heads, self.heads.head_dim, sum(self.features)
        part = max(self._filled(size[1]))
        chunk = min(self.chunk, size[1])
        features = part * (heads.num_heads + heads.kv_heads) * (count + 3 * (d + 1))
        pairs = 3 * part * chunk * heads.num_heads
        sums = 2 * (part // chunk + 1) * heads.kv_heads * count * (d + 1)
        return math.prod(size) + size[0] * (features + pairs + sums)

    def _filled(self, length: int) -> list[int]:
        """Positions of the parts of a sequence, filled up to whole chunks."""
        parts = [min(_AT_ONCE, length - start) for start in range(0, length, _AT_ONCE)]
        return [n + -n % min(self.chunk, n) for n in parts]

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        heads = self.heads
        rope = "None" if self.rotary is None else f"{self.rotary.base:g}"
        return (
            f"{self.dim}, num_heads={heads.num_heads}, kv_heads={heads.kv_heads}, "
            f"normalise={self.normalise}, square={self.square}, rope_base={rope}, chunk={self.chunk}, "
            f"bias={self.out.bias is not None}"
        )


def _running(first: Tensor, added: Tensor) -> Tensor:
    """(B, g, ...) and what each of n chunks adds, (B, g, n, ...) -> sums before each and after all, n + 1."""
    return torch.cat([first.unsqueeze(2), added], 2).cumsum(2)


ROW = MixerRow(
    TaylorAttention1d,
    replace(
        ABOUT,
        read=f"{ABOUT.read}; flash-linear-attention's Based at bc3b101 (MIT)",
        differs="rotary positions unless they are left out; products of two channels are summed once; chunks "
        "of positions are taken at once; sums are in single precision at least",
    ),
    Example((9,), {"num_heads": 4, "kv_heads": 2, "chunk": 4}, long={"chunk": 64}),
    Traits(1, heads=True, causal=True),
)
