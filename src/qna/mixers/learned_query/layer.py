"""What every layer of learned queries is made of: the projections around the attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from torch import nn

from qna._core import checks
from qna._core.about import About
from qna._core.errors import InvalidInput
from qna.mixers.learned_query.projection import FoldedQueryKeyValue, QueryKeyValue, QueryShape
from qna.parts.initializers import init_linear_

# the paper, for every row of what is made of it; another row replaces what it read and what differs
ABOUT = About(
    title="Learned Queries for Efficient Local Attention",
    authors="Arar, Shamir, Bermano",
    venue="CVPR 2022",
    arxiv="2112.11435",
    read="the paper; the authors' JAX code, moabarar/qna at 1f8e8e3 (MIT)",
    differs="one and three axes are ours; a maximum is subtracted before exponentials; windows of any size "
    "keep the map's size, and one that holds only padding gives 0 instead of NaN; no key bias, which cancels",
    status="exact",
)

Layer = TypeVar("Layer", bound="LearnedQueryLayer")


class LearnedQueryLayer(nn.Module):
    """Learned queries with their projections; what lies between is the subclass's.

    Args:
        dim: channels of the input.
        taps: sizes of the tables of position bias and query weights, one per axis.
        num_heads: heads at `dim` channels; head dim ``dim // num_heads`` stays, heads grow with `out_dim`.
        num_queries: learned queries per head.
        out_dim: channels of the output.
        position: "relative", "contextual", "absolute" or "none".
        query_weight: "normal", "elementwise", "posneg", "ones", "avg" or "none".
        bias: whether values and output have a bias; a key bias would cancel in the softmax.
        normalize_query: bring each head's query to unit length before the division by sqrt(head dim).

    Raises:
        InvalidInput: `num_heads` does not divide `dim`, `out_dim` is no multiple of the head dim, a size is
            not positive, or a mode is unknown.
    """

    project: QueryKeyValue | FoldedQueryKeyValue

    def __init__(
        self,
        dim: int,
        taps: Sequence[int],
        *,
        num_heads: int,
        num_queries: int,
        out_dim: int,
        position: str,
        query_weight: str,
        bias: bool,
        normalize_query: bool,
    ):
        super().__init__()
        name = type(self).__name__
        head_dim = checks.head_dim(name, dim, num_heads)
        self.dim = dim
        self.out_dim = out_dim
        self.num_heads = _heads_of(name, out_dim, head_dim)
        self.num_queries = num_queries
        self.project = QueryKeyValue(
            dim,
            QueryShape(num_queries, self.num_heads, head_dim),
            taps,
            position=position,
            query_weight=query_weight,
            bias=bias,
            normalize_query=normalize_query,
        )
        self.out = nn.Linear(out_dim, out_dim, bias=bias)
        init_linear_(self.out)

    def fuse(self: Layer) -> Layer:
        """Fold the queries into one projection with the values, for inference; in place, returns itself.

        The output stays the same to rounding. Queries, keys, values, position bias and query weights become
        constants that no longer train: `project.packed`, a linear map like any other, and two tables. The
        output projection stays as it was.
        """
        self.project = self.project.fold()
        return self

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that the paper's training exempts from decay: the tables."""
        return {name for name, _ in self.named_parameters() if name.endswith(".table")}


def _heads_of(owner: str, out_dim: int, head_dim: int) -> int:
    """Number of heads at `out_dim` channels, which must be a multiple of `head_dim`."""
    checks.positive(owner, out_dim=out_dim)
    if out_dim % head_dim:
        near = max(1, round(out_dim / head_dim)) * head_dim
        raise InvalidInput(
            f"{owner}: out_dim must be a multiple of the head dim {head_dim} (dim // num_heads), "
            f"got {out_dim}; try {near}"
        )
    return out_dim // head_dim
