"""How values and scores may lie in memory: the heads fastest, and both in one buffer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product

import torch
from torch import Tensor


def split(packed: Tensor, queries: int) -> tuple[Tensor, Tensor]:
    """Views of (B, *space, d + L, h): scores (B, *space, L, h) and values (B, *space, h, d)."""
    value, scores = packed.split_with_sizes((packed.shape[-2] - queries, queries), -2)
    return scores, value.transpose(-1, -2)


def unpack(scores: Tensor | None, value: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Scores and values of a call, or of its gradients; without scores, `value` holds both."""
    return split(value, bias.shape[-2]) if scores is None else (scores, value)


def interleave(grouped: Tensor, factor: Sequence[int]) -> Tensor:
    """(B, *windows, G, ...) -> (B, *space', ...): the G = prod(factor) outputs of a window side by side."""
    axes = len(factor)
    apart = grouped.unflatten(axes + 1, tuple(factor))
    # of each axis the window's place, then the sub-pixel's in it
    order = [axis for a in range(1, axes + 1) for axis in (a, a + axes)]
    together = apart.permute(0, *order, *range(2 * axes + 1, apart.ndim))
    for axis in range(1, axes + 1):
        together = together.flatten(axis, axis + 1)
    return together


def subpixels(fine: Tensor, factor: Sequence[int]) -> Iterator[Tensor]:
    """Views (B, *windows, h, d) of (B, *space', h, d), one for each output of a window."""
    for place in product(*map(range, factor)):
        yield fine[(slice(None), *(slice(r, None, f) for r, f in zip(place, factor, strict=True)))]


def groups(queries: Tensor | None, factor: Sequence[int]) -> Sequence[Tensor | None]:
    """Views (..., L / prod(factor), h) of (..., L, h), one for each output of a window."""
    number = math.prod(factor)
    return (None,) * number if queries is None else queries.chunk(number, -2)


def heads_fastest(value: Tensor) -> bool:
    """Whether the channels of `value` (..., h, d) lie in memory as (d, h), the layout of the layers."""
    heads = value.shape[-2]
    return heads > 1 and value.stride(-2) == 1 and value.stride(-1) == heads


def empty_like(value: Tensor, space: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
    """An uninitialised (B, *space, h, d) whose channels lie in memory as those of `value` do."""
    batch, *_, h, d = value.shape
    if heads_fastest(value):
        return value.new_empty((batch, *space, d, h), dtype=dtype).transpose(-1, -2)
    return value.new_empty((batch, *space, h, d), dtype=dtype)


def is_dense(t: Tensor, transposed: bool) -> bool:
    """Whether the last two axes of `t` (..., m, n) lie densely in this order, or `transposed`."""
    (m, n), (sm, sn) = t.shape[-2:], t.stride()[-2:]
    if transposed:
        (m, n), (sm, sn) = (n, m), (sn, sm)
    return (n == 1 or sn == 1) and (m == 1 or sm == n)


def dense(t: Tensor, transposed: bool) -> Tensor:
    """`t` (..., m, n), copied unless it `is_dense`."""
    if is_dense(t, transposed):
        return t
    return t.transpose(-1, -2).contiguous().transpose(-1, -2) if transposed else t.contiguous()


def parameter(t: Tensor | None) -> Tensor | None:
    """Bias or weight as kernels for GPUs read them."""
    return None if t is None else t.float().contiguous()
