"""Attention that is the same whatever is read: queries and keys of noise, or of a text that stays."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from qna._core import checks
from qna._core.errors import InvalidInput
from qna.mixers.causal.deconstructed.about import ABOUT
from qna.mixers.causal.deconstructed.sourced import SourcedAttention
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.causal_attend import attend_before
from qna.parts.drawn_at import normal_at
from qna.parts.growing import Growing
from qna.parts.kv_cache import CachePolicy, KeepAll
from qna.parts.linear import apply_linear
from qna.parts.open_size import is_open
from qna.parts.qk_source import FixedNoise, FixedText, QkSource, counted_words
from qna.parts.rotary import HALVES
from qna.parts.sequence_state import SequenceState, SharedByAll

# queries whose scores are there at once, where values of several sequences meet them
_BLOCK = 512


class FixedMapAttention(SourcedAttention):
    """Softmax attention with queries and keys of one sequence for all, and values of each.

    Scores are formed once for all B sequences. N positions with C channels, h heads of d and g of keys cost
    ``N C d (h + g) + N (N + 1) h d / 2`` multiply-adds once, for queries, keys and scores, and as many for
    each sequence, for values and output. Keys are kept once, and the values of each: ``(B + 1) g d``
    numbers a position. After training `fix_map` keeps the attention itself, and no queries, keys or other
    sequence are needed: ``g d`` numbers a position and sequence are kept then.

    Arguments of `SoftmaxAttention`.
    """

    _map: Tensor | None

    def __init__(self, dim: int, **arguments: Any):
        super().__init__(dim, **arguments)
        self.register_buffer("_map", None, persistent=False)

    @property
    @abstractmethod
    def asked(self) -> QkSource:
        """The sequence of which the attention is."""

    @property
    def qk_source(self) -> QkSource | None:
        """What is `asked`; None where the map is fixed."""
        return None if self._map is not None else self.asked

    @property
    def policy(self) -> CachePolicy:
        """Everything is kept."""
        return KeepAll()

    def pairs(self, length: int) -> int:
        """A triangle."""
        return length * (length + 1) // 2

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Over all positions up to its own: (1 or B, h, n, d), (1 or B, h', m, d), (B, h', m, e)."""
        batch, n, m = value.shape[0], query.shape[2], key.shape[2]
        if query.shape[0] == batch:
            return attend_before(query, key, value)
        # sequences are channels of the values of one, so that scores are formed once
        folded = value.permute(1, 2, 0, 3).flatten(2)[None]
        if is_open(n) or is_open(m) or torch.compiler.is_compiling() or n <= _BLOCK:
            attended = attend_before(query, key, folded)
        else:
            parts = []
            for start in range(0, n, _BLOCK):
                end = m - n + min(start + _BLOCK, n)
                block = query[:, :, start : start + _BLOCK]
                parts.append(attend_before(block, key[:, :, :end], folded[:, :, :end]))
            attended = torch.cat(parts, 2)
        return attended[0].unflatten(-1, (batch, value.shape[-1])).permute(2, 0, 1, 3)

    def forward(self, x: Tensor, qk_source: Tensor | None = None) -> Tensor:
        """(B, N, dim) -> (B, N, dim), by the sequence that is given, the fixed map, or its own sequence."""
        if self._map is None or qk_source is not None:
            return super().forward(x, qk_source)
        self.check(x)
        return self.joined(self._by_map(self._values(x), 0), x)

    def attention_map(self, x: Tensor, qk_source: Tensor | None = None) -> Tensor:
        """What each position gets of each other, (1, h, N, N), at least in single precision."""
        if self._map is None or qk_source is not None:
            return super().attention_map(x, qk_source)
        self.check(x)
        self._within_map(x.shape[1])
        shares = self._map[:, :, : x.shape[1], : x.shape[1]]
        return shares.to(torch.promote_types(shares.dtype, torch.float32))

    def begin(self, batch: int, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
        """No key, of all, and no value."""
        keys, values = self._shape(batch, device, dtype).nothing()
        held: dict[str, Any] = {"values": values}
        if self._map is None:
            held["keys"] = SharedByAll((Growing(keys.tensor.new_empty(1, *keys.tensor.shape[1:])),))
        return held

    def advance(
        self, x: Tensor, state: SequenceState, qk_source: Tensor | None = None
    ) -> tuple[Tensor, SequenceState]:
        """Attention over the keys of all and the values of each."""
        if self._map is not None:
            if qk_source is not None:
                raise InvalidInput(
                    f"{type(self).__name__}: its map is fixed and takes no qk_source; release_map() lets it"
                )
            values = _appended(state["values"], self._values(x))
            attended = self._by_map(values.tensor.to(x.dtype), state.length)
            return self.joined(attended, x), state.after(x.shape[1], values=values)
        source = self._source(x, state.length, qk_source)
        if source.shape[0] != 1:
            raise InvalidInput(
                f"{type(self).__name__}: queries and keys are of one sequence for all, got {source.shape[0]}"
            )
        query, key, value = self.project(x, state.length, source)
        (before,) = state["keys"].held
        keys, values = _appended(before, key), _appended(state["values"], value)
        attended = self.attend(query, *(t.tensor.to(query.dtype) for t in (keys, values)))
        return self.joined(attended, x), state.after(x.shape[1], keys=SharedByAll((keys,)), values=values)

    @torch.no_grad()
    def fix_map(self, length: int, qk_source: Tensor | None = None) -> None:
        """Keep the attention of `length` positions, (h, length, length) numbers.

        It is exact as long as the weights stay: training mode releases it. A longer sequence is refused.

        Args:
            length: of the longest sequence.
            qk_source: (1, length, dim); None for its own.
        """
        checks.positive(type(self).__name__, length=length)
        self.release_map()
        like = self.out.weight.new_empty(1, length, self.dim)
        self._map = self.attention_map(like, qk_source).to(like.dtype)

    def release_map(self) -> None:
        """Attend by queries and keys again."""
        self._map = None

    def train(self, mode: bool = True) -> FixedMapAttention:
        """As of any module; a map that is fixed would not follow the weights, and is released."""
        if mode:
            self.release_map()
        return super().train(mode)

    def state_bytes(self, size: Sequence[int], dtype: torch.dtype = torch.float32) -> int:
        """Bytes of keys, once, and of values after sequences of `size` = (B, N, dim)."""
        numbers = self.heads.kv_heads * self.heads.head_dim * size[1]
        return (size[0] + (self._map is None)) * numbers * dtype.itemsize

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for sequences of `size` = (B, N, dim); without queries, keys and scores by a map."""
        heads = self.heads
        inner, kept = heads.num_heads * heads.head_dim, heads.kv_heads * heads.head_dim
        pairs = self.pairs(size[1]) * inner
        each = size[1] * self.dim * (kept + inner) + pairs
        once = size[1] * self.dim * (inner + kept) + pairs if self._map is None else 0
        return size[0] * each + once

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: queries, keys and their sequence once, values and what they become."""
        heads = self.heads
        kept = heads.num_heads + heads.kv_heads
        once = size[1] * (2 * heads.head_dim * kept + self.dim) + heads.num_heads * _BLOCK * size[1]
        return once + math.prod(size[:2]) * max(2 * heads.head_dim * kept, self.dim)

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show, and how far the map is fixed."""
        fixed = "" if self._map is None else f", map of {self._map.shape[-1]}"
        return f"{super().extra_repr()}{fixed}"

    def _values(self, x: Tensor) -> Tensor:
        """Without queries and keys."""
        return apply_linear(self.heads.value, x).unflatten(-1, (-1, self.heads.head_dim)).transpose(1, 2)

    def _within_map(self, positions: int) -> None:
        assert self._map is not None
        if positions > self._map.shape[-1]:
            raise InvalidInput(
                f"{type(self).__name__}: its map is fixed for {self._map.shape[-1]:,} positions, and the "
                f"sequence has {positions:,}; release_map() attends without it, fix_map(length) keeps more "
                "of it"
            )

    def _by_map(self, value: Tensor, start: int) -> Tensor:
        """Attention by the rows of the map from `start` on: (B, h', m, d) -> (B, h, m - start, d)."""
        assert self._map is not None
        m = value.shape[2]
        self._within_map(m)
        rows = self._map[0, :, start:m, :m].to(value.dtype)
        groups = self.heads.num_heads // self.heads.kv_heads
        rows = rows.unflatten(0, (-1, groups)).flatten(1, 2)
        return (rows @ value).unflatten(2, (groups, m - start)).flatten(1, 2)


class RandomQueryKey1d(FixedMapAttention):
    """RndEmbQK (Xue et al., arXiv 2510.11602, equations 9 and 10)::

        X = blocks(noise)        Q, K = X W_Q, X W_K        V = H W_V

    Noise of N(0, std^2) is drawn for each position and channel from `seed`, so that it has any length and
    begins always alike. A decoder takes it through its blocks, up to this one, as any sequence (of one, at a
    batch of 1), each block reading it by the attention that it makes; without a network X is the noise. The
    paper's noise has an unnamed spread: ours is that of this library's embeddings before training. See
    `FixedMapAttention` for cost and cache.

    Args:
        dim: channels of input and output.
        num_heads: this and the following are those of `SoftmaxAttention`.
        std: of the noise, above 0.
        seed: of the noise.

    Raises:
        InvalidInput: as `SoftmaxAttention`, or `std` is not above 0.
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
        std: float = 0.02,
        seed: int = 0,
    ):
        super().__init__(
            dim, num_heads=num_heads, kv_heads=kv_heads, head_dim=head_dim, bias=bias, rope_base=rope_base,
            rope_layout=rope_layout, rope_scale=rope_scale,
        )  # fmt: skip
        if not 0 < std < math.inf:
            raise InvalidInput(f"{type(self).__name__}: std must be above 0 and finite, got {std!r}")
        self._asked = FixedNoise(std, seed)

    @property
    def asked(self) -> FixedNoise:
        """The noise."""
        return self._asked

    def by_itself(self, x: Tensor, start: int) -> Tensor:
        """The noise as it is drawn."""
        return self._asked.first(start, x.shape[1], _no_tokens, None, x)

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show, and how far the map is fixed."""
        return f"{super().extra_repr()}, std={self._asked.std:g}, seed={self._asked.seed}"


class FixedTextQueryKey1d(FixedMapAttention):
    """FixedSeqQK (Xue et al., arXiv 2510.11602, equations 11 and 12)::

        X = blocks(embed(text))        Q, K = X W_Q, X W_K        V = H W_V

    with one text for all, which a decoder takes through its blocks, up to this one, as any sequence, at a
    batch of 1. The paper takes the first 2,048 tokens of FineWeb. A decoder's text is its own
    (`models.decoder.Decoder.fix_text`; the task `language` takes the beginning of what it trains on) and is
    kept with its weights. Beyond the text there are no queries and keys, and a longer sequence is refused.
    Without a network X is numbers in words, each byte a vector that is drawn for it. See `FixedMapAttention`
    for cost and cache.

    Args:
        dim: channels of input and output.
        num_heads: this and the following are those of `SoftmaxAttention`.
        length: tokens of the text, and of the longest sequence.

    Raises:
        InvalidInput: as `SoftmaxAttention`, or `length` is not positive.
    """

    _words: Tensor

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
        length: int = 2048,
    ):
        super().__init__(
            dim, num_heads=num_heads, kv_heads=kv_heads, head_dim=head_dim, bias=bias, rope_base=rope_base,
            rope_layout=rope_layout, rope_scale=rope_scale,
        )  # fmt: skip
        checks.positive(type(self).__name__, length=length)
        self._asked = FixedText(length)
        self.register_buffer("_words", counted_words(length), persistent=False)

    @property
    def asked(self) -> FixedText:
        """The text."""
        return self._asked

    def by_itself(self, x: Tensor, start: int) -> Tensor:
        """Numbers in words."""

        def drawn(tokens: Tensor) -> Tensor:
            return normal_at(tokens, self.dim, 0, x)

        return self._asked.first(start, x.shape[1], drawn, self._words, x)

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show, and how far the map is fixed."""
        return f"{super().extra_repr()}, length={self._asked.length}"


def _no_tokens(tokens: Tensor) -> Tensor:
    raise AssertionError("noise is no text")


def _appended(kept: Growing, new: Tensor) -> Growing:
    return kept.append(new.to(kept.tensor.dtype))


_ONCE = "keys are kept once, whatever the batch"
ROWS = tuple(
    MixerRow(
        mixer,
        replace(ABOUT, differs=differs),
        Example((9,), {"num_heads": 4, "kv_heads": 2, **own}, long=long),
        Traits(1, heads=True, causal=True),
        exempt={"bytes_are_told": _ONCE, "an_empty_batch_goes_on": _ONCE},
    )
    for mixer, own, long, differs in (
        (RandomQueryKey1d, {}, {}, "noise is drawn by position; rotary positions, which it leaves open"),
        (
            FixedTextQueryKey1d,
            {"length": 64},
            {"length": 33_000},
            "another text, that of a decoder; rotary positions, which it leaves open",
        ),
    )
)
