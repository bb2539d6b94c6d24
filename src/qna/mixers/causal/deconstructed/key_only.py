"""Attention whose weights are a position's own: a running mean, weighted by a softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core import checks
from qna.mixers.causal.deconstructed.about import ABOUT
from qna.mixers.causal.mixer import CausalMixer
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.grouped_heads import GroupedHeads
from qna.parts.initializers import init_linear_
from qna.parts.linear import apply_linear
from qna.parts.open_size import is_open
from qna.parts.precision import without_autocast
from qna.parts.rows import PositionRows, matrix_rows
from qna.parts.sequence_state import SequenceState


class KeyOnlyAttention1d(CausalMixer):
    """The "Non-approximate" attention (Xue et al., arXiv 2510.11602, equations 7, 8 and 18)::

        s_j = SiLU(q_j) . k_j / sqrt(d)        o_i = sum_(j <= i) e^(s_j) v_j / sum_(j <= i) e^(s_j)

    The weight of a position is made of that position alone: who asks does not matter. A sum of values, one of
    weights and the largest score say all that came before, ``C + 2 h`` numbers of C channels and h heads, in
    single precision at least. Scores are taken below the largest so far, so that none overflows.

    Chunks of positions are taken at once; what chunks have summed is brought to the largest score before each
    by a triangle of chunks. It costs ``N C (3 C + C + c + 1)`` multiply-adds with chunks of c, and one for
    each pair of chunks and channel; fewer maps where heads share keys. Equation 18 leaves out the square root
    that equation 7 has. There are no rotary positions: those of a query and a key at one place cancel.

    Args:
        dim: channels of input and output.
        num_heads: heads of queries and weights; divides `dim`.
        kv_heads: heads of keys and values, a divisor of `num_heads`; None for as many.
        chunk: positions taken at once; of the result it changes the rounding alone.
        bias: whether the four linear maps have one.

    Raises:
        InvalidInput: heads do not divide, or `chunk` is not positive.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        kv_heads: int | None = None,
        chunk: int = 64,
        bias: bool = False,
    ):
        super().__init__()
        name = type(self).__name__
        checks.positive(name, chunk=chunk)
        self.dim = self.out_dim = dim
        self.chunk = chunk
        self.heads = GroupedHeads(name, dim, num_heads=num_heads, kv_heads=kv_heads, bias=bias)
        self.out = nn.Linear(dim, dim, bias=bias)
        init_linear_(self.out)

    def begin(self, batch: int, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
        """Sums of nothing, below which every score lies."""
        heads, d = self.heads.num_heads, self.heads.head_dim
        exact = torch.promote_types(dtype, torch.float32)
        weights = torch.zeros(batch, heads, device=device, dtype=exact)
        # the lowest number, and not -inf: the difference of two of them is 0
        return {
            "sums": weights.new_zeros(batch, heads, d),
            "weights": weights,
            "largest": torch.full_like(weights, torch.finfo(exact).min),
        }

    def advance(self, x: Tensor, state: SequenceState) -> tuple[Tensor, SequenceState]:
        """All chunks at once."""
        length = x.shape[1]
        query, key, value = self.heads(x)
        dtype = value.dtype
        with without_autocast(x.device):
            score, value = self._scores(query, key), self._values(value)
            chunk = self.chunk if is_open(length) else min(self.chunk, length)
            more = -length % chunk
            lowest = torch.finfo(score.dtype).min
            # what fills up has no weight and no value; the last channel sums the weights
            score = torch.cat([score, score.new_full((*score.shape[:2], more), lowest)], 2)
            value = torch.cat([value, torch.ones_like(value[..., :1])], 3)
            value = torch.cat([value, value.new_zeros(*value.shape[:2], more, value.shape[3])], 2)
            score, value = score.unflatten(2, (-1, chunk)), value.unflatten(2, (-1, chunk))
            # constants: a common factor of numerator and denominator has no gradient
            heights = score.detach()
            before, after, largest = self._chunks(score, heights, value, state)
            # the largest of all up to each position
            top = torch.maximum(heights.cummax(-1).values, before[0][..., None])
            below = (score[..., None, :] - top[..., None]).clamp(max=0).exp().tril()
            carried = (before[0][..., None] - top).exp()
            every = below @ value + carried[..., None] * before[1][..., None, :]
            attended = (every[..., :-1] / every[..., -1:]).flatten(2, 3)[:, :, :length].transpose(1, 2)
        out = apply_linear(self.out, attended.to(dtype).reshape(x.shape))
        return out, state.after(length, sums=after[..., :-1], weights=after[..., -1], largest=largest)

    def _chunks(
        self, score: Tensor, heights: Tensor, value: Tensor, state: SequenceState
    ) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
        """The largest score before each of n chunks, sums relative to it, and both after all.

        Args:
            score: (B, h, n, c).
            heights: the same without a gradient.
            value: (B, h, n, c, d + 1).
            state: before all.

        Returns:
            (B, h, n) and (B, h, n, d + 1); (B, h, d + 1); (B, h).
        """
        exact = score.dtype
        held = torch.cat([state["sums"], state["weights"][..., None]], -1).to(exact)
        tops = torch.cat([state["largest"].to(exact)[..., None], heights.amax(-1)], -1)
        own = ((score - tops[..., 1:, None]).exp()[..., None, :] @ value).squeeze(-2)
        own = torch.cat([held[:, :, None], own], 2)
        reached = tops.cummax(-1).values
        # later chunks may be higher than what is reached here: they do not count, and must not overflow
        factors = (tops[..., None, :] - reached[..., None]).clamp(max=0).exp().tril()
        sums = factors @ own
        return (reached[..., :-1], sums[:, :, :-1]), sums[:, :, -1], reached[..., -1]

    def attention_map(self, x: Tensor) -> Tensor:
        """What each position of `x` gets of each other, (B, h, N, N), at least in single precision."""
        self.check(x)
        query, key, _ = self.heads(x)
        with without_autocast(x.device):
            score = self._scores(query, key)
        hidden = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        return score[..., None, :].masked_fill(hidden, -torch.inf).softmax(-1)

    def attention_rows(self, x: Tensor) -> PositionRows:
        """The same, mean over heads."""
        return matrix_rows(self.attention_map(x))

    def state_bytes(self, size: Sequence[int], dtype: torch.dtype = torch.float32) -> int:
        """Bytes of the sums of sequences of `size` = (B, N, dim), however long."""
        numbers = size[0] * (self.dim + 2 * self.heads.num_heads)
        return numbers * torch.promote_types(dtype, torch.float32).itemsize

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for sequences of `size` = (B, N, dim): maps, scores, sums inside and of chunks."""
        chunk, inner = min(self.chunk, size[1]), self.dim + self.heads.num_heads
        chunks = -(-size[1] // chunk)
        maps = self.heads.macs(math.prod(size[:2])) + math.prod(size) * self.dim
        within = chunks * chunk * (self.dim + (chunk + 2) * inner)
        return maps + size[0] * (within + (chunks + 1) ** 2 * inner)

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: maps, weights inside chunks, what they sum, and what becomes of it."""
        chunk, heads = min(self.chunk, size[1]), self.heads.num_heads
        chunks = -(-size[1] // chunk)
        within = chunks * chunk * (chunk * heads + 2 * (self.dim + heads))
        return 3 * math.prod(size) + size[0] * (within + (chunks + 1) ** 2 * heads)

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        heads = self.heads
        return (
            f"{self.dim}, num_heads={heads.num_heads}, kv_heads={heads.kv_heads}, chunk={self.chunk}, "
            f"bias={self.out.bias is not None}"
        )

    def _scores(self, query: Tensor, key: Tensor) -> Tensor:
        """Of each position by itself, (B, h, N), in single precision at least."""
        exact = torch.promote_types(query.dtype, torch.float32)
        key = key.repeat_interleave(self.heads.num_heads // self.heads.kv_heads, 1)
        return (F.silu(query.to(exact)) * key.to(exact)).sum(-1) * self.heads.head_dim**-0.5

    def _values(self, value: Tensor) -> Tensor:
        exact = torch.promote_types(value.dtype, torch.float32)
        return value.to(exact).repeat_interleave(self.heads.num_heads // self.heads.kv_heads, 1)


ROW = MixerRow(
    KeyOnlyAttention1d,
    replace(
        ABOUT,
        differs="weights are taken below the largest score so far; chunks of positions at once; sums are in "
        "single precision at least",
    ),
    Example((9,), {"num_heads": 4, "kv_heads": 2, "chunk": 4}, long={"chunk": 64}),
    Traits(1, heads=True, causal=True),
)
