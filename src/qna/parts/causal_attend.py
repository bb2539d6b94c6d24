"""Attention of queries to what came before them: dense, and in a band, for grouped heads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from qna.parts.attend import transformed
from qna.parts.open_size import is_open

# queries that are masked at once where a part of a sequence meets all that came before it
_BLOCK = 512
# queries that share the keys of a band at least: smaller products cost more than they save
_LEAST_BAND = 128


def attend_before(query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None = None) -> Tensor:
    """``softmax(query key^T / sqrt(d)) value`` of the last n of m positions, each over those up to itself.

    It takes about ``(m - n / 2) n`` products of heads; scores are never formed for all queries at once.

    Args:
        query: (B, h, n, d), of the positions m - n to m - 1.
        key: (B, h', m, d), h' a divisor of h: query head i meets head ``i // (h / h')``.
        value: (B, h', m, e).
        seen: bool, broadcasting with (B, h, n, m), what a query may see of what came before it; None for all.

    Returns:
        (B, h, n, e).
    """
    n, m = query.shape[-2], key.shape[-2]
    if seen is not None:
        return attend_where(query, key, value, seen & lower_right(n, m, query.device))
    if n == 1:
        return _all(query, key, value)
    if transformed():
        return attend_where(query, key, value, lower_right(n, m, query.device))
    if n == m:
        grouped = query.shape[1] != key.shape[1]
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=grouped)
    if n <= _BLOCK or torch.compiler.is_compiling():
        return attend_where(query, key, value, lower_right(n, m, query.device))
    parts = []
    for start in range(0, n, _BLOCK):
        part = query[:, :, start : start + _BLOCK]
        end = m - n + start + part.shape[-2]
        parts.append(attend_before(part, key[:, :, :end], value[:, :, :end]))
    return torch.cat(parts, -2)


def attend_where(query: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> Tensor:
    """The same with a mask alone: `seen` is bool and broadcasts with (B, h, n, m); every query sees a key."""
    if transformed():
        groups = query.shape[1] // key.shape[1]
        key, value = (t.repeat_interleave(groups, 1) for t in (key, value))
        logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        return logits.masked_fill(~seen, -torch.inf).softmax(-1) @ value
    grouped = query.shape[1] != key.shape[1]
    return F.scaled_dot_product_attention(query, key, value, attn_mask=seen, enable_gqa=grouped)


def attend_band(query: Tensor, key: Tensor, value: Tensor, *, window: int, sinks: int = 0) -> Tensor:
    """As `attend_before`, each query over the `window` positions that end with it, and the first `sinks`.

    Blocks of queries meet the keys of their windows, so that it takes at most ``n (2 window + sinks)``
    products of heads for windows of 128 and more, and of smaller ones as many as 128 would.

    Args:
        query: (B, h, n, d), of the last n of all positions.
        key: (B, h', m, d): the first min(sinks, m) positions are those of the sequence, the others the last.
            Those between, which no query has in its window, may be missing.
        value: (B, h', m, e).
        window: positions, the query's own among them.
        sinks: first positions of the sequence that every later query sees.
    """
    n, m = query.shape[-2], key.shape[-2]
    # a graph for any length names no blocks
    whole = torch.compiler.is_exporting() and is_open(m)
    if not whole and m <= window:
        return attend_before(query, key, value)
    block = max(window, _LEAST_BAND)
    if whole or transformed() or m <= block + window:
        places = torch.arange(m, device=query.device)
        return attend_where(query, key, value, _banded(places[m - n :], places, window, sinks))
    parts = []
    for start in range(m - n, m, block):
        stop = min(start + block, m)
        first = max(start - window + 1, 0)
        met = torch.arange(first, stop, device=query.device)
        keys, values = key[:, :, first:stop], value[:, :, first:stop]
        if apart := min(sinks, first):
            met = torch.cat([torch.arange(apart, device=query.device), met])
            keys, values = (
                torch.cat([every[:, :, :apart], near], -2) for every, near in ((key, keys), (value, values))
            )
        seen = _banded(torch.arange(start, stop, device=query.device), met, window, sinks)
        parts.append(attend_where(query[:, :, start - m + n : stop - m + n], keys, values, seen))
    return torch.cat(parts, -2)


def lower_right(n: int, m: int, device: torch.device) -> Tensor:
    """What the last n of m positions see of all, themselves included: bool (n, m)."""
    return torch.arange(m, device=device) <= torch.arange(m - n, m, device=device)[:, None]


def _banded(q: Tensor, k: Tensor, window: int, sinks: int) -> Tensor:
    """What queries at places q see of keys at places k: bool (n, m)."""
    q = q[:, None]
    return (k <= q) & ((k > q - window) | (k < sinks))


def _all(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """One query of each head over all keys: the heads of a group are rows of one product."""
    heads = query.shape[1]
    rows = query.squeeze(2).unflatten(1, (key.shape[1], -1))
    if transformed():
        attended = (rows * rows.shape[-1] ** -0.5 @ key.transpose(-1, -2)).softmax(-1) @ value
    else:
        attended = F.scaled_dot_product_attention(rows, key, value)
    return attended.reshape(-1, heads, 1, value.shape[-1])
