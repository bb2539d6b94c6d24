"""QnA over a whole map: attention pooling with learned queries."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from qna._core import checks
from qna._core.checks import per_axis
from qna.mixers.learned_query.layer import ABOUT, LearnedQueryLayer
from qna.mixers.learned_query.projection import merge_heads
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.linear import apply_linear
from qna.parts.resize import resize_table
from qna.parts.rows import PositionRows


class QnAPool2d(LearnedQueryLayer):
    """Pool a map of any height and width into one vector with learned queries.

    The form of the paper's classification heads: one window over the whole map. Position bias and query
    weights are learned for maps of `map_size` and resized (bicubic, as for the authors' fine-tuning at other
    resolutions) for any other map.

    Args:
        dim: channels of the input.
        num_heads: heads at `dim` channels; head dim ``dim // num_heads`` stays, heads grow with `out_dim`.
        map_size: (H, W) of the maps that it is trained for; an integer for both.
        num_queries: learned queries per head.
        out_dim: channels of the output; None for `dim`.
        position: "relative", "contextual", "absolute" or "none".
        query_weight: "normal", "elementwise", "posneg", "ones", "avg" or "none".
        bias: whether values and output have a bias; a key bias would cancel in the softmax.
        normalize_query: bring each head's query to unit length before the division by sqrt(head dim).

    Raises:
        InvalidInput: as for `QnA2d`.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        map_size: int | Sequence[int],
        num_queries: int = 2,
        out_dim: int | None = None,
        position: str = "relative",
        query_weight: str = "normal",
        bias: bool = False,
        normalize_query: bool = True,
    ):
        taps = per_axis("map_size", map_size, 2, minimum=1)
        super().__init__(
            dim,
            taps,
            num_heads=num_heads,
            num_queries=num_queries,
            out_dim=dim if out_dim is None else out_dim,
            position=position,
            query_weight=query_weight,
            bias=bias,
            normalize_query=normalize_query,
        )
        self.map_size = taps

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, out_dim)."""
        shares, value, weight = self._shares(x)
        if weight is not None:
            shares = shares * resize_table(weight.to(shares.dtype), x.shape[1:3]).flatten(0, 1)
        attended = torch.einsum("bnh,bnhd->bhd", shares.sum(2).to(value.dtype), value.flatten(1, 2))
        return apply_linear(self.out, merge_heads(attended))

    def attention_map(self, x: Tensor) -> Tensor:
        """The softmax over the map, before the query weights: (B, L, h, H, W), at least fp32."""
        shares, _, _ = self._shares(x)
        return shares.movedim(1, -1).unflatten(-1, x.shape[1:3])

    def attention_received(self, x: Tensor) -> Tensor:
        """What each position gets, mean over queries and heads: (B, H, W), 1 where attention is even."""
        return self.attention_map(x).mean((1, 2)) * (x.shape[1] * x.shape[2])

    def attention_rows(self, x: Tensor) -> PositionRows:
        """Where its one window, the map, looks: the softmax, mean over queries and heads."""
        shares = self.attention_map(x).mean((1, 2)).flatten(1)[:, None]
        return PositionRows(shares, torch.arange(shares.shape[2], device=x.device)[None])

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size` = (B, H, W, dim), counted as for a `QnA2d` with one window."""
        n, inner = math.prod(size[:-1]), self.out_dim
        Lh, LC = self.num_queries * self.num_heads, self.num_queries * inner
        projections = n * self.dim * (inner + Lh) + size[0] * inner * inner
        return projections + n * LC + n * (LC + Lh) + self.project.query_macs()

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: values and scores, what was attended, and the output."""
        n, inner = math.prod(size[:-1]), self.out_dim
        return n * (inner + self.num_queries * self.num_heads) + 2 * size[0] * inner

    def _shares(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Softmax (B, H * W, L, h), values (B, H, W, h, d) and query weights for maps of `map_size`."""
        checks.channels_last_map(type(self).__name__, x, self.dim, 2)
        scores, value, bias, weight = self.project(x).split()
        dtype = torch.promote_types(scores.dtype, torch.float32)
        logits = scores.to(dtype) + resize_table(bias.to(dtype), x.shape[1:3])
        return logits.flatten(1, 2).softmax(1), value, weight

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        return (
            f"{self.dim}, out_dim={self.out_dim}, num_heads={self.num_heads}, map_size={self.map_size}, "
            f"num_queries={self.num_queries}"
        )


ROW = MixerRow(
    QnAPool2d,
    ABOUT,
    Example((5, 7), {"num_heads": 2, "map_size": (4, 7)}, out_space=()),
    Traits(2, heads=True),
)
