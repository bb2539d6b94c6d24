"""Unit vectors, and queries whose length is learned and grows with the number of keys."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LengthScaledQueries(nn.Module):
    """Queries of length-scaled cosine attention with a query embedding (Shi, CVPR 2024).

    Of unit queries q of a head, with a learned vector and a learned temperature for each::

        (q + embedding) softplus(temperature) log(number of keys)

    Args:
        num_heads: heads.
        head_dim: channels of each.
    """

    def __init__(self, num_heads: int, head_dim: int):
        super().__init__()
        # with the axis of positions that the authors' files have
        self.embedding = nn.Parameter(nn.init.normal_(torch.empty(num_heads, 1, head_dim), std=0.02))
        # softplus of it is 1 / 0.24
        self.temperature = nn.Parameter(torch.full((num_heads, 1, 1), math.log(math.expm1(1 / 0.24))))

    def forward(self, q: Tensor, keys: Tensor) -> Tensor:
        """As `q`.

        Args:
            q: unit vectors (B, H, W, heads, d).
            keys: how many a query has, (H, W) or one for all, of any floating dtype.
        """
        # scores go up to 20: of factors in half precision they would be off by percents
        wide = torch.promote_types(q.dtype, torch.float32)
        temperature, embedding = (t.to(wide).squeeze(1) for t in (self.temperature, self.embedding))
        factor = F.softplus(temperature) * keys.to(wide).log()[..., None, None]
        return ((q.to(wide) + embedding) * factor).to(q.dtype)


def unit(x: Tensor) -> Tensor:
    """Vectors of length 1 in the last axis; of no length what is 0."""
    wide = torch.promote_types(x.dtype, torch.float32)
    return F.normalize(x.to(wide), dim=-1).to(x.dtype)
