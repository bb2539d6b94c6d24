"""How values and scores may lie in memory: the heads fastest, and both in one buffer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def split(packed: Tensor, queries: int) -> tuple[Tensor, Tensor]:
    """Views of (B, *space, d + L, h): scores (B, *space, L, h) and values (B, *space, h, d)."""
    value, scores = packed.split_with_sizes((packed.shape[-2] - queries, queries), -2)
    return scores, value.transpose(-1, -2)


def unpack(scores: Tensor | None, value: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Scores and values of a call, or of its gradients; without scores, `value` holds both."""
    return split(value, bias.shape[-2]) if scores is None else (scores, value)


def heads_fastest(value: Tensor) -> bool:
    """Whether the channels of `value` (..., h, d) lie in memory as (d, h), the layout of the layers."""
    heads = value.shape[-2]
    return heads > 1 and value.stride(-2) == 1 and value.stride(-1) == heads


def empty_like(value: Tensor, space: Sequence[int]) -> Tensor:
    """An uninitialised (B, *space, h, d) whose channels lie in memory as those of `value` do."""
    batch, *_, h, d = value.shape
    if heads_fastest(value):
        return value.new_empty((batch, *space, d, h)).transpose(-1, -2)
    return value.new_empty((batch, *space, h, d))
