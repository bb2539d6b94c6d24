"""Queries, keys and values of attention in which several heads of queries share one of keys and values."""

from __future__ import annotations

from torch import Tensor, nn

from qna._core import checks
from qna._core.errors import InvalidInput
from qna.parts.initializers import init_linear_
from qna.parts.linear import apply_linear


class GroupedHeads(nn.Module):
    """Three linear maps, split into heads (grouped-query attention; Ainslie et al., arXiv 2305.13245).

    Head i of the queries meets head ``i // (heads / kv_heads)`` of keys and values. It costs
    ``C d (heads + 2 kv_heads)`` multiply-adds for each position.

    Args:
        owner: whose arguments these are, for errors.
        dim: channels C of the input.
        num_heads: heads of queries.
        kv_heads: of keys and values, a divisor of `num_heads`; None for as many.
        head_dim: channels d of a head; None for ``dim // num_heads``.
        bias: whether the maps have one.

    Raises:
        InvalidInput: heads do not divide.
    """

    def __init__(
        self,
        owner: str,
        dim: int,
        *,
        num_heads: int,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        bias: bool = False,
    ):
        super().__init__()
        if head_dim is None:
            head_dim = checks.head_dim(owner, dim, num_heads)
        kv_heads = num_heads if kv_heads is None else kv_heads
        checks.positive(owner, dim=dim, num_heads=num_heads, kv_heads=kv_heads, head_dim=head_dim)
        if num_heads % kv_heads:
            raise InvalidInput(
                f"{owner}: kv_heads must divide num_heads, got kv_heads={kv_heads} and num_heads={num_heads}"
            )
        self.num_heads, self.kv_heads, self.head_dim = num_heads, kv_heads, head_dim
        self.query = nn.Linear(dim, num_heads * head_dim, bias=bias)
        self.key = nn.Linear(dim, kv_heads * head_dim, bias=bias)
        self.value = nn.Linear(dim, kv_heads * head_dim, bias=bias)
        for layer in (self.query, self.key, self.value):
            init_linear_(layer)

    def forward(self, x: Tensor, source: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, C) -> queries (B, heads, N, d), keys and values (B, kv_heads, N, d).

        Args:
            x: of which values are made.
            source: of which queries and keys are made, (B or 1, N, C); None for `x`.
        """
        source = x if source is None else source
        query, key, value = (
            apply_linear(layer, of).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for layer, of in ((self.query, source), (self.key, source), (self.value, x))
        )
        return query, key, value

    def macs(self, positions: int) -> int:
        """Multiply-adds for that many positions."""
        return positions * self.query.in_features * self.head_dim * (self.num_heads + 2 * self.kv_heads)
