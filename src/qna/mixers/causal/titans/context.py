"""Memory as context (MAC): attention inside segments, over what the memory gives back for each token as
well."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from qna._core import checks
from qna._core.errors import InvalidInput
from qna.mixers.causal.mixer import CausalMixer
from qna.mixers.causal.titans.memory import ABOUT, NeuralMemory1d
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.causal_attend import attend_where
from qna.parts.grouped_heads import GroupedHeads
from qna.parts.initializers import init_linear_
from qna.parts.linear import apply_linear
from qna.parts.rotary import HALVES, Rotary
from qna.parts.sequence_state import SequenceState


class MemoryAsContext1d(CausalMixer):
    """Titans' MAC (Behrouz, Zhong, Mirrokni, arXiv 2501.00663, section 4.1), segment by segment::

        r_t = M(x_t W_Q)                      with the weights that the memory had before the segment
        y_t = attention of x_t over [P, r_1 .. r_t, x_1 .. x_t] of the segment
        M reads y_t, then                     out_t = RMSNorm(y_t) * sigmoid(RMSNorm(M_t(y_t)))

    with learned persistent tokens P. The paper does not say which of the recalled r a token sees; only those
    up to its own leave no way for later input, so it is these. The segment is attended, and no more: what
    lies before it comes back through the memory alone. Rotary positions count P, the recalled and the
    segment's tokens one behind the other. What attention gives is much alike from position to position, and
    the steps of a chunk then add up: a memory whose `step` is well above 1 / chunk runs away. Of N positions
    with C channels and segments of s it costs ``4 N C^2`` and at most ``2 N C (s + P)`` multiply-adds beside
    the memory's; the state holds the memory's, its weights before the segment, and keys and values of the
    recalled and of the segment.

    Args:
        dim: channels of input and output.
        num_heads: heads of attention and of the memory.
        segment: positions that attend each other; a multiple of the memory's chunk.
        persistent: learned tokens before every segment.
        rope_base: of rotary positions; None for none.
        memory: further arguments of `NeuralMemory1d`.

    Raises:
        InvalidInput: `segment` is no multiple of the memory's chunk, or what the memory refuses.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        segment: int = 64,
        persistent: int = 4,
        rope_base: float | None = 10_000.0,
        memory: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        owner = type(self).__name__
        checks.positive(owner, segment=segment)
        checks.natural(owner, persistent=persistent)
        self.dim = self.out_dim = dim
        self.segment = segment
        self.memory = NeuralMemory1d(dim, num_heads=num_heads, **(memory or {}))
        if segment % self.memory.chunk:
            raise InvalidInput(
                f"{owner}: segment must be a multiple of the memory's chunk, got segment={segment} and "
                f"chunk={self.memory.chunk}"
            )
        self.persistent = nn.Parameter(torch.empty(persistent, dim))
        nn.init.normal_(self.persistent, std=0.02)
        self.heads = GroupedHeads(owner, dim, num_heads=num_heads)
        self.rotary = None if rope_base is None else Rotary(self.heads.head_dim, rope_base, HALVES)
        self.out = nn.Linear(dim, dim, bias=False)
        init_linear_(self.out)
        self.attention_norm, self.memory_norm = (nn.RMSNorm(dim, eps=1e-6) for _ in range(2))

    def begin(self, batch: int, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
        """The memory's beginning, and nothing of a segment."""
        memory = self.memory.init_state(batch, device=device, dtype=dtype)
        empty = torch.zeros(batch, self.heads.num_heads, 0, self.heads.head_dim, device=device, dtype=dtype)
        held = dict.fromkeys(("recalled_keys", "recalled_values", "keys", "values"), empty)
        return {"memory": memory, **self._before(memory), **held}

    def advance(self, x: Tensor, state: SequenceState) -> tuple[Tensor, SequenceState]:
        """To the end of the open segment, then segment by segment; the last one may stay open."""
        parts, begin = [x[:, :0]], 0
        while begin < x.shape[1]:
            stop = min(x.shape[1], begin + self.segment - state.length % self.segment)
            y, state = self._inside(x[:, begin:stop], state)
            parts.append(y)
            begin = stop
        return torch.cat(parts, 1), state

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for sequences of `size` = (B, N, dim)."""
        positions = math.prod(size[:2])
        weights = sum(w.numel() for w in self.memory.memory)
        maps = positions * (7 * self.dim**2 + weights) + len(self.persistent) * 2 * self.dim**2
        whole, rest = divmod(size[1], self.segment)
        pairs = size[1] * len(self.persistent) + sum(
            count * n * (n + 1) for count, n in ((whole, self.segment), (1, rest))
        )
        return maps + 2 * size[0] * pairs * self.dim + self.memory.macs(size)

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: what attention gives and what the memory needs."""
        return math.prod(size[:2]) * self.dim + self.memory.held(size)

    def state_bytes(self, size: Sequence[int], dtype: torch.dtype = torch.float32) -> int:
        """Bytes of the memory, its weights before the segment, and what was seen of the segment."""
        exact = torch.promote_types(dtype, torch.float32).itemsize
        weights = sum(w.numel() for w in self.memory.memory) * exact
        inside = 4 * (size[1] % self.segment) * self.dim * dtype.itemsize
        return self.memory.state_bytes(size, dtype) + size[0] * (weights + inside)

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        base = "None" if self.rotary is None else f"{self.rotary.base:g}"
        return (
            f"{self.memory.extra_repr()}, segment={self.segment}, persistent={len(self.persistent)}, "
            f"rope_base={base}"
        )

    def _before(self, memory: SequenceState) -> dict[str, Tensor]:
        """The weights with which a segment recalls."""
        return {f"before{layer}": memory[f"weights{layer}"] for layer in range(self.memory.depth)}

    def _inside(self, x: Tensor, state: SequenceState) -> tuple[Tensor, SequenceState]:
        """Tokens of one segment, the next ones."""
        n, at = x.shape[1], state.length % self.segment
        before = tuple(state[f"before{layer}"] for layer in range(self.memory.depth))
        recalled = self.memory.recall(x, before)
        first = len(self.persistent)
        prefix = self.persistent.to(x.dtype).expand(x.shape[0], -1, -1)
        query, keys, values = self._turned(x, first + self.segment + at)
        every: list[tuple[Tensor, Tensor]] = [self._turned(prefix, 0)[1:]]
        held: dict[str, Tensor] = {}
        news = {"recalled_": self._turned(recalled, first + at)[1:], "": (keys, values)}
        for name, new in news.items():
            both = [
                torch.cat([state[name + what], t.to(state[name + what].dtype)], 2)
                for what, t in zip(("keys", "values"), new, strict=True)
            ]
            held |= {f"{name}keys": both[0], f"{name}values": both[1]}
            every.append((both[0].to(query.dtype), both[1].to(query.dtype)))
        places = torch.arange(at + n, device=x.device)
        seen = places <= places[at:, None]
        seen = torch.cat([seen.new_ones(n, first), seen, seen], 1)
        keys, values = (torch.cat(t, 2) for t in zip(*every, strict=True))
        attended = attend_where(query, keys, values, seen)
        y = apply_linear(self.out, attended.transpose(1, 2).flatten(2))
        z, memory = self.memory.step(y, state["memory"])
        weight = self.memory_norm.weight
        normed, gate = self.attention_norm(y.to(weight.dtype)), self.memory_norm(z.to(weight.dtype))
        if at + n == self.segment:
            held = {name: t[:, :, :0] for name, t in held.items()} | self._before(memory)
        return (normed * gate.sigmoid()).to(x.dtype), state.after(n, memory=memory, **held)

    def _turned(self, x: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of tokens at positions from `start` on."""
        query, key, value = self.heads(x)
        if self.rotary is not None:
            turns = self.rotary.turns_from(start, x.shape[1], query)
            query, key = self.rotary.rotate(query, turns), self.rotary.rotate(key, turns)
        return query, key, value


ROW = MixerRow(
    MemoryAsContext1d,
    replace(
        ABOUT,
        differs="a token sees what was recalled for itself and those before it; queries of the recall pass "
        "no convolution; of the two that are normed the memory passes the sigmoid",
    ),
    Example(
        (9,),
        {
            "num_heads": 2,
            "segment": 16,
            "persistent": 2,
            "memory": {"chunk": 16, "step": 0.01, "decay": False},
        },
        long={"segment": 1024, "memory": {"chunk": 64, "step": 0.01}},
    ),
    Traits(1, heads=True, causal=True),
    exempt={"hooks_fire_on_every_module": "the memory goes on from a state, by step, which no hook sees"},
)
