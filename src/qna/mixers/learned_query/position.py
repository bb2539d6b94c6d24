"""Position bias of a window's taps, inside the softmax: (*kernel, L, h) from the query (L, h, d).

Sizes: L queries, h heads, d channels per head. The query arrives normalised and divided by sqrt(d).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from qna.parts.initializers import lecun_normal_


class RelativePosition(nn.Module):
    """One learned bias per tap, query and head, from zero: the paper's mode."""

    def __init__(self, kernel: Sequence[int], queries: int, heads: int, head_dim: int):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(*kernel, queries, heads))

    def forward(self, query: Tensor) -> Tensor:
        """(*kernel, L, h)."""
        return self.table


class ContextualPosition(nn.Module):
    """A linear map of the query of all heads: ``bias[t,l,g] = sum_hd query[l,h,d] weight[h,d,t,g] + b[t,g]``.

    The bias mode of iRPE (Wu et al., arXiv 2107.14222) for a query that all windows share.
    """

    def __init__(self, kernel: Sequence[int], queries: int, heads: int, head_dim: int):
        super().__init__()
        self.kernel = tuple(kernel)
        taps = math.prod(kernel)
        self.weight = nn.Parameter(torch.empty(heads, head_dim, taps, heads))
        self.bias = nn.Parameter(torch.zeros(taps, heads))
        lecun_normal_(self.weight, heads * head_dim)

    def forward(self, query: Tensor) -> Tensor:
        """(*kernel, L, h)."""
        bias = torch.einsum("lhd,hdtg->tlg", query, self.weight) + self.bias.unsqueeze(1)
        return bias.unflatten(0, self.kernel)


class AbsolutePosition(nn.Module):
    """The query's product with one learned vector per tap, query and head: ``query[l,h] . table[t,l,h]``."""

    def __init__(self, kernel: Sequence[int], queries: int, heads: int, head_dim: int):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(*kernel, queries, heads, head_dim))

    def forward(self, query: Tensor) -> Tensor:
        """(*kernel, L, h)."""
        return (query * self.table).sum(-1)


class NoPosition(nn.Module):
    """No bias: what a window's taps hold is seen, their order is not (but through the query weights)."""

    def __init__(self, kernel: Sequence[int], queries: int, heads: int, head_dim: int):
        super().__init__()
        self.shape = (*kernel, queries, heads)

    def forward(self, query: Tensor) -> Tensor:
        """(*kernel, L, h)."""
        return query.new_zeros(self.shape)


POSITIONS = {
    "relative": RelativePosition,
    "contextual": ContextualPosition,
    "absolute": AbsolutePosition,
    "none": NoPosition,
}
