"""What causal softmax attention has beside the span that it sees: heads, rotary positions, caches."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qna.mixers.causal.mixer import CausalMixer
from qna.parts.grouped_heads import GroupedHeads
from qna.parts.initializers import init_linear_
from qna.parts.kv_cache import CachePolicy, CacheShape
from qna.parts.linear import apply_linear
from qna.parts.rotary import HALVES, Rotary
from qna.parts.rows import PositionRows, matrix_rows
from qna.parts.sequence_state import SequenceState


class SoftmaxAttention(CausalMixer):
    """``out(attend(turn(query(x)), turn(key(x)), value(x)))`` with a cache of turned keys, and values.

    Args:
        dim: channels of input and output.
        num_heads: heads of queries.
        kv_heads: heads of keys and values, a divisor of `num_heads`; None for as many.
        head_dim: channels of a head; None for ``dim // num_heads``.
        bias: whether the four linear maps have one.
        rope_base: of rotary positions; None for none, with which order is known by the mask alone.
        rope_layout: which channels are a pair: "halves" or "pairs", see `qna.parts.rotary.Rotary`.
        rope_scale: by which positions are divided, for contexts longer than those of training.

    Raises:
        InvalidInput: heads do not divide, or the head cannot be turned.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        bias: bool = False,
        rope_base: float | None = 10_000.0,
        rope_layout: str = HALVES,
        rope_scale: float = 1.0,
    ):
        super().__init__()
        self.dim = self.out_dim = dim
        self.heads = GroupedHeads(
            type(self).__name__, dim, num_heads=num_heads, kv_heads=kv_heads, head_dim=head_dim, bias=bias
        )
        head_dim = self.heads.head_dim
        self.rotary = None if rope_base is None else Rotary(head_dim, rope_base, rope_layout, rope_scale)
        self.out = nn.Linear(num_heads * head_dim, dim, bias=bias)
        init_linear_(self.out)

    @abstractmethod
    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention inside a whole sequence: (B, h, N, d) and (B, h', N, d) twice -> (B, h, N, d)."""

    @property
    @abstractmethod
    def policy(self) -> CachePolicy:
        """What is kept unless another policy is asked for: all that a later position can see."""

    @abstractmethod
    def pairs(self, length: int) -> float:
        """Pairs of a query and a key that it sees, in a sequence; the mean of heads that differ."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, dim) -> (B, N, dim)."""
        self.check(x)
        return self.joined(self.attend(*self.project(x, 0)), x)

    def begin(self, batch: int, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
        """An empty cache."""
        return {"cache": self.policy.empty(self._shape(batch, device, dtype))}

    def advance(self, x: Tensor, state: SequenceState) -> tuple[Tensor, SequenceState]:
        """Attention over what is kept and the new positions."""
        attended, cache = state["cache"].attend(*self.project(x, state.length))
        return self.joined(attended, x), state.after(x.shape[1], cache=cache)

    def kept_by(
        self, policy: CachePolicy, batch: int, device: torch.device | None, dtype: torch.dtype | None
    ) -> SequenceState:
        """What is known before the first position, with the cache of another policy than the mixer's own."""
        device, dtype = self._place(device, dtype)
        held = {"cache": policy.empty(self._shape(batch, device, dtype))}
        return SequenceState(self.configuration, self._batch(batch), 0, held)

    def project(self, x: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, h, N, d) and keys (B, h', N, d), turned to positions from `start` on, and values."""
        query, key, value = self.heads(x)
        if self.rotary is not None:
            turns = self.rotary.turns_from(start, x.shape[1], query)
            query, key = self.rotary.rotate(query, turns), self.rotary.rotate(key, turns)
        return query, key, value

    def attention_map(self, x: Tensor) -> Tensor:
        """What each position of `x` gets of each other, (B, h, N, N), at least in single precision."""
        return self.shown(*self.project(x, 0)[:2])

    def attention_rows(self, x: Tensor) -> PositionRows:
        """The same, mean over heads."""
        return matrix_rows(self.attention_map(x))

    def shown(self, query: Tensor, key: Tensor) -> Tensor:
        """The map of these queries and keys: what is attended of values that name their positions."""
        exact = torch.promote_types(query.dtype, torch.float32)
        names = torch.eye(key.shape[2], dtype=exact, device=key.device).expand(*key.shape[:2], -1, -1)
        return self.attend(query.to(exact), key.to(exact), names)

    def state_bytes(self, size: Sequence[int], dtype: torch.dtype = torch.float32) -> int:
        """Bytes of what is kept after sequences of `size` = (B, N, dim), by the mixer's own policy."""
        return self.policy.state_bytes(self._shape(size[0], torch.device("cpu"), dtype), size[1])

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for sequences of `size` = (B, N, dim): linear maps, scores and values."""
        inner = self.heads.num_heads * self.heads.head_dim
        maps = self.heads.macs(math.prod(size[:2])) + math.prod(size[:2]) * inner * self.dim
        return maps + round(2 * size[0] * self.pairs(size[1]) * inner)

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: queries, keys and values, what they become, and no scores.

        While queries are turned, they are there twice.
        """
        heads = self.heads
        kept = 2 * heads.num_heads + 2 * heads.kv_heads
        return max(math.prod(size[:2]) * heads.head_dim * kept, math.prod(size[:2]) * self.dim)

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        heads, rotary = self.heads, self.rotary
        rope = (
            "None"
            if rotary is None
            else f"{rotary.base:g}, rope_layout={rotary.layout}, rope_scale={rotary.scale:g}"
        )
        return (
            f"{self.dim}, num_heads={heads.num_heads}, kv_heads={heads.kv_heads}, head_dim={heads.head_dim}, "
            f"bias={self.out.bias is not None}, rope_base={rope}"
        )

    def _shape(self, batch: int, device: torch.device, dtype: torch.dtype) -> CacheShape:
        heads = self.heads
        return CacheShape(batch, heads.kv_heads, heads.head_dim, heads.head_dim, device, dtype)

    def joined(self, attended: Tensor, x: Tensor) -> Tensor:
        """The heads' output (B, h, N, d), and the input that they had, to (B, N, dim)."""
        return apply_linear(self.out, attended.transpose(1, 2).flatten(2))
