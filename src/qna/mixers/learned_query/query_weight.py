"""Weights that merge the queries' answers into one: (*kernel, L, h), in the numerator only.

Sizes: L queries, h heads. The query (L, h, d) is given for its dtype and device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class _QueryWeight(nn.Module):
    """Keeps the shape of the weights."""

    def __init__(self, kernel: Sequence[int], queries: int, heads: int):
        super().__init__()
        self.shape = (*kernel, queries, heads)


class NormalQueryWeight(_QueryWeight):
    """One learned weight per tap, query and head, from N(0, 0.02): the layer starts near zero."""

    def __init__(self, kernel: Sequence[int], queries: int, heads: int):
        super().__init__(kernel, queries, heads)
        self.table = nn.Parameter(torch.empty(self.shape).normal_(std=0.02))

    def forward(self, query: Tensor) -> Tensor:
        """(*kernel, L, h)."""
        return self.table


class ElementwiseQueryWeight(_QueryWeight):
    """One learned weight per query and head, the same at every tap, from N(0, 0.02)."""

    def __init__(self, kernel: Sequence[int], queries: int, heads: int):
        super().__init__(kernel, queries, heads)
        self.table = nn.Parameter(torch.empty(queries, heads).normal_(std=0.02))

    def forward(self, query: Tensor) -> Tensor:
        """(*kernel, L, h)."""
        return self.table.expand(self.shape)


class PosNegQueryWeight(_QueryWeight):
    """Fixed: +1 for the first half of the L * h pairs (query by query), -1 for the rest."""

    def forward(self, query: Tensor) -> Tensor:
        """(*kernel, L, h)."""
        queries, heads = self.shape[-2:]
        pair = torch.arange(queries * heads, device=query.device)
        sign = torch.where(2 * pair < queries * heads, 1, -1).to(query.dtype)
        return sign.view(queries, heads).expand(self.shape)


class OnesQueryWeight(_QueryWeight):
    """One learned weight per tap, query and head, from 1: the layer starts as a plain attention."""

    def __init__(self, kernel: Sequence[int], queries: int, heads: int):
        super().__init__(kernel, queries, heads)
        self.table = nn.Parameter(torch.ones(self.shape))

    def forward(self, query: Tensor) -> Tensor:
        """(*kernel, L, h)."""
        return self.table


class AverageQueryWeight(_QueryWeight):
    """Fixed: the mean over the queries."""

    def forward(self, query: Tensor) -> Tensor:
        """(*kernel, L, h)."""
        return query.new_full((), 1 / self.shape[-2]).expand(self.shape)


class NoQueryWeight(_QueryWeight):
    """Fixed: the sum over the queries."""

    def forward(self, query: Tensor) -> None:
        """None, which the op takes for 1."""


QUERY_WEIGHTS = {
    "normal": NormalQueryWeight,
    "elementwise": ElementwiseQueryWeight,
    "posneg": PosNegQueryWeight,
    "ones": OnesQueryWeight,
    "avg": AverageQueryWeight,
    "none": NoQueryWeight,
}
