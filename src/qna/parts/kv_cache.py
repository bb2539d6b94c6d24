"""What softmax attention keeps of keys and values, as policies that are apart from any mixer.

A policy is a frozen configuration; it makes caches, which are values: each attention gives the next one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from qna._core import checks
from qna.parts.causal_attend import attend_band, attend_before
from qna.parts.growing import Growing


@dataclass(frozen=True)
class CacheShape:
    """Of the caches of a layer: sequences, heads of keys and values, channels of each, and where they lie."""

    batch: int
    heads: int
    key_dim: int
    value_dim: int
    device: torch.device
    dtype: torch.dtype

    def nothing(self) -> tuple[Growing, Growing]:
        """No key and no value."""
        return tuple(
            Growing(torch.empty(self.batch, self.heads, 0, d, device=self.device, dtype=self.dtype))
            for d in (self.key_dim, self.value_dim)
        )  # pyright: ignore[reportReturnType]


class Cache(ABC):
    """Keys and values of the positions that are kept, never changed in place."""

    @abstractmethod
    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Any]:
        """Attention of the next n positions over what is kept and themselves, and what is kept then.

        Args:
            query: (B, h, n, d), turned to their positions.
            key: (B, h', n, d), turned to their positions; h' divides h.
            value: (B, h', n, e).

        Returns:
            (B, h, n, e), and the next cache.
        """

    @abstractmethod
    def select(self, rows: Tensor) -> Any:
        """The cache of other sequences: row i of it is row ``rows[i]`` of this."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of what is kept."""


class CachePolicy(ABC):
    """What is kept of the keys and values of one layer."""

    @abstractmethod
    def empty(self, shape: CacheShape) -> Cache:
        """The cache before the first position."""

    @abstractmethod
    def kept(self, length: int) -> int:
        """Positions that each head keeps after `length` positions."""

    def state_bytes(self, shape: CacheShape, length: int) -> int:
        """Bytes of a cache after `length` positions."""
        numbers = shape.batch * shape.heads * self.kept(length) * (shape.key_dim + shape.value_dim)
        return numbers * shape.dtype.itemsize


@dataclass(frozen=True)
class KeepAll(CachePolicy):
    """Every position stays: exact, and the cache grows with the sequence."""

    def empty(self, shape: CacheShape) -> Cache:
        """Nothing yet."""
        return WholeCache(*shape.nothing())

    def kept(self, length: int) -> int:
        """All."""
        return length


class KeepSinksAndLast(CachePolicy):
    """The first `sinks` positions of the sequence stay, and so many of the last as the next query may see.

    What a query sees is told by positions alone, so that every split of a sequence gives the same.

    Attributes:
        sinks: first positions that stay.
    """

    sinks: int

    @abstractmethod
    def attend(self, query: Tensor, key: Tensor, value: Tensor, before: int) -> Tensor:
        """Attention of the n positions behind `before`; of one alone, whose keys are all kept for it.

        Args:
            query: (B, h, n, d).
            key: (B, h', m, d): first sinks, then the last positions without a gap, those of the queries
                among them.
            value: (B, h', m, e), the same.
            before: positions of the sequence before the queries'.
        """

    @abstractmethod
    def last(self, length: int) -> int:
        """Positions at the end, of `length`, that a later query may see and that are kept beside sinks."""

    def empty(self, shape: CacheShape) -> Cache:
        """Nothing yet."""
        keys, values = shape.nothing()
        return _SinksAndLast(self, keys.tensor, values.tensor, keys, values, 0)

    def kept(self, length: int) -> int:
        """Sinks, and the last that are none."""
        sinks = min(length, self.sinks)
        return sinks + min(self.last(length), length - sinks)


@dataclass(frozen=True)
class KeepWindow(KeepSinksAndLast):
    """The last `window` positions stay, and the first `sinks` of the sequence (Xiao et al., StreamingLLM).

    What a query sees is told by positions alone: the `window` that end with its own, and the sinks; so every
    split of a sequence gives the same. Keys keep the angles of their positions in the sequence, where
    StreamingLLM turns them anew by their places in the cache.

    Args:
        window: positions, the query's own among them.
        sinks: first positions that stay: 4 in the paper; 0 is a plain sliding window.
    """

    window: int
    sinks: int = 0

    def __post_init__(self):
        checks.positive(type(self).__name__, window=self.window)
        checks.natural(type(self).__name__, sinks=self.sinks)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, before: int) -> Tensor:
        """Over the window and the sinks."""
        if query.shape[-2] == 1:
            # all that is kept
            return attend_before(query, key, value)
        return attend_band(query, key, value, window=self.window, sinks=self.sinks)

    def last(self, length: int) -> int:
        """The next query is in its own window."""
        return self.window - 1


@dataclass(frozen=True)
class WholeCache(Cache):
    """Keys and values of all positions: the cache of `KeepAll`."""

    keys: Growing
    values: Growing

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, WholeCache]:
        """As `Cache.attend`, by `attended`."""
        keys, values = _appended(self.keys, key), _appended(self.values, value)
        attended = self.attended(query, _like(keys, query), _like(values, query))
        return attended, replace(self, keys=keys, values=values)

    def attended(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Queries of the last positions over all that came before, and themselves."""
        return attend_before(query, keys, values)

    def select(self, rows: Tensor) -> WholeCache:
        """The cache of other sequences."""
        return replace(self, keys=self.keys.select(rows), values=self.values.select(rows))

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return self.keys.nbytes + self.values.nbytes


@dataclass(frozen=True)
class _SinksAndLast(Cache):
    """Sinks first, apart from the rest, which is left behind."""

    policy: KeepSinksAndLast
    sink_keys: Tensor
    sink_values: Tensor
    keys: Growing
    values: Growing
    length: int

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, _SinksAndLast]:
        sinks, length = self.policy.sinks, self.length + query.shape[-2]
        taken = min(sinks - self.sink_keys.shape[-2], key.shape[-2])
        sink_keys, sink_values = self.sink_keys, self.sink_values
        if taken:
            sink_keys, sink_values = (
                torch.cat([old, new[..., :taken, :].to(old.dtype)], -2)
                for old, new in ((sink_keys, key), (sink_values, value))
            )
            key, value = key[..., taken:, :], value[..., taken:, :]
        keys, values = _appended(self.keys, key), _appended(self.values, value)
        every_key, every_value = (
            _like(t, query) if not sinks else torch.cat([_to(s, query), _like(t, query)], -2)
            for s, t in ((sink_keys, keys), (sink_values, values))
        )
        attended = self.policy.attend(query, every_key, every_value, self.length)
        last = self.policy.last(length)
        return attended, _SinksAndLast(
            self.policy, sink_keys, sink_values, keys.last(last), values.last(last), length
        )

    def select(self, rows: Tensor) -> _SinksAndLast:
        at = rows.to(self.sink_keys.device)
        sinks = self.sink_keys.index_select(0, at), self.sink_values.index_select(0, at)
        return replace(
            self,
            sink_keys=sinks[0],
            sink_values=sinks[1],
            keys=self.keys.select(rows),
            values=self.values.select(rows),
        )

    @property
    def nbytes(self) -> int:
        sinks = sum(t.numel() * t.element_size() for t in (self.sink_keys, self.sink_values))
        return sinks + self.keys.nbytes + self.values.nbytes


class ScoredCache(Cache):
    """A cache whose policy chooses by the attention that keys received: each head of keys for itself.

    Scores are formed, n (m + n) a head. A policy that keeps by them (H2O) gives a cache that says which.

    Args:
        keys: (B, h', m, d).
        values: (B, h', m, e).
        positions: of the keys in the sequence, int64 (B, h', m), rising.
        received: attention that they received so far, summed over queries and the heads of a group, in single
            precision at least: (B, h', m).
        length: positions that were seen.
    """

    def __init__(self, keys: Tensor, values: Tensor, positions: Tensor, received: Tensor, length: int):
        self.keys, self.values = keys, values
        self.positions, self.received = positions, received
        self.length = length

    @abstractmethod
    def chosen(self, positions: Tensor, received: Tensor, length: int) -> Tensor | None:
        """Which keys stay: int64 (B, h', kept), rising indices into the last axis of both; None for all."""

    @abstractmethod
    def made(self, *tensors: Tensor, length: int) -> ScoredCache:
        """Another cache of the same policy, of keys, values, positions and received."""

    @classmethod
    def nothing(cls, shape: CacheShape) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Keys, values, positions and received before the first position."""
        keys, values = (t.tensor for t in shape.nothing())
        exact = torch.promote_types(shape.dtype, torch.float32)
        return keys, values, keys[..., 0].long(), keys[..., 0].to(exact)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ScoredCache]:
        """As `Cache.attend`; then what is not `chosen` is dropped."""
        n, length = query.shape[-2], self.length + query.shape[-2]
        new = torch.arange(self.length, length, device=query.device)
        positions = torch.cat([self.positions, new.expand(*self.positions.shape[:-1], n)], -1)
        keys = torch.cat([self.keys, key.to(self.keys.dtype)], -2)
        values = torch.cat([self.values, value.to(self.values.dtype)], -2)
        rows = query.unflatten(1, (keys.shape[1], -1))
        exact = torch.promote_types(query.dtype, torch.float32)
        scores = rows @ keys.to(query.dtype)[:, :, None].transpose(-1, -2) * query.shape[-1] ** -0.5
        hidden = positions[:, :, None, None] > new[:, None]
        shares = scores.to(exact).masked_fill(hidden, -torch.inf).softmax(-1)
        attended = shares.to(query.dtype) @ values.to(query.dtype)[:, :, None]
        attended = attended.flatten(1, 2)
        old = torch.cat([self.received, self.received.new_zeros(*self.received.shape[:-1], n)], -1)
        received = old + shares.sum((2, 3)).to(old.dtype)
        kept = self.chosen(positions, received, length)
        if kept is not None:
            positions, received = positions.gather(-1, kept), received.gather(-1, kept)
            keys, values = (
                t.gather(-2, kept[..., None].expand(*kept.shape, t.shape[-1])) for t in (keys, values)
            )
        return attended, self.made(keys, values, positions, received, length=length)

    def select(self, rows: Tensor) -> ScoredCache:
        """The cache of other sequences."""
        every = (self.keys, self.values, self.positions, self.received)
        return self.made(*(t.index_select(0, rows.to(t.device)) for t in every), length=self.length)

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values, positions and what was received."""
        every = (self.keys, self.values, self.positions, self.received)
        return sum(t.numel() * t.element_size() for t in every)


def _appended(kept: Growing, new: Tensor) -> Growing:
    return kept.append(new if new.dtype == kept.tensor.dtype else new.to(kept.tensor.dtype))


def _like(kept: Growing, query: Tensor) -> Tensor:
    return _to(kept.tensor, query)


def _to(kept: Tensor, query: Tensor) -> Tensor:
    """What is kept in another dtype, as under autocast, is read in that of the queries."""
    return kept if kept.dtype == query.dtype else kept.to(query.dtype)
