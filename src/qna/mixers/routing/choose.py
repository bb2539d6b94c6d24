"""Which regions each region attends: those whose mean key its mean query meets best."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qna.parts.precision import without_autocast


def choose_regions(
    query: Tensor, key: Tensor, topk: int, *, inside: Tensor | None = None, skip_empty: bool = False
) -> Tensor:
    """The `topk` regions with the largest products of mean query and mean key, best first.

    No gradient passes through the choice: what is attended passes it on.

    Args:
        query: (B, R, n, C), n positions of each of R regions.
        key: the same.
        topk: how many; all where there are fewer.
        inside: bool (R, n), positions that count; the others hold zeros. None for all.
        skip_empty: choose regions without any such position last.

    Returns:
        int64 (B * R, topk), numbers of regions of all maps one after another.
    """
    wide = torch.promote_types(query.dtype, torch.float32)
    counts = query.shape[2] if inside is None else inside.sum(1).clamp(min=1)[:, None]
    query_mean, key_mean = (t.detach().sum(2, dtype=wide) / counts for t in (query, key))
    # a choice is not to be made by rounding
    with without_autocast(query.device):
        logits = query_mean @ key_mean.transpose(1, 2)
    if skip_empty and inside is not None:
        logits = logits.masked_fill(~inside.any(1), float("-inf"))
    batch, _, count = logits.shape
    # a question about an open size would bind a graph to its answer
    most: Any = torch.sym_min(topk, count) if isinstance(count, torch.SymInt) else min(topk, int(count))
    routes = logits.topk(most, -1).indices
    first = torch.arange(batch, device=logits.device) * count
    return (routes + first[:, None, None]).flatten(0, 1)
