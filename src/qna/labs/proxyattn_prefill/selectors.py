"""What chooses blocks: proxies, and as many blocks that nobody looked for."""

from __future__ import annotations

import torch
from torch import Tensor

PROXY, RANDOM, WINDOW = "proxies", "random blocks", "sink and window"
CHOOSERS = (PROXY, WINDOW, RANDOM)


def random_as_many(kept: Tensor, seed: int) -> Tensor:
    """As many blocks in each row of each head, drawn; a row's own block and the first are among them.

    Args:
        kept: bool (B, h, R, R), which keeps both as well.
        seed: of the draw.
    """
    draws = torch.Generator().manual_seed(seed)
    likes = torch.rand(kept.shape, generator=draws)
    return _as_many(kept, likes)


def window_as_many(kept: Tensor) -> Tensor:
    """As many blocks in each row of each head: the first, and the last up to its own."""
    return _as_many(kept, torch.arange(kept.shape[-1], dtype=torch.float32).expand(kept.shape))


def _as_many(kept: Tensor, likes: Tensor) -> Tensor:
    rows = torch.arange(kept.shape[-1])
    later = rows > rows[:, None]
    always = (rows == 0) | (rows == rows[:, None])
    likes = likes.masked_fill(always, torch.inf).masked_fill(later, -torch.inf)
    places = likes.argsort(dim=-1, descending=True).argsort(-1)
    return places < kept.tril().sum(-1, keepdim=True)
