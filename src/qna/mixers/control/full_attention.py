"""Self-attention of every position to the whole map: what local attention saves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from qna._core import checks
from qna._core.about import About
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.attend import attend
from qna.parts.head_gate import GatedHeads
from qna.parts.initializers import init_linear_
from qna.parts.linear import apply_linear
from qna.parts.rows import PositionRows, whole_map_rows


class FullAttention2d(GatedHeads, nn.Module):
    """Multi-head self-attention (Vaswani et al., NeurIPS 2017, section 3.2) of all positions of a map.

    It knows no positions: whoever wants them adds an embedding to the map, as vision transformers do. With n
    positions and C channels it costs 4 n C^2 + 2 n^2 C multiply-adds.

    Args:
        dim: channels of input and output.
        num_heads: heads; divides `dim`.
        bias: whether queries, keys, values and output have a bias.

    Raises:
        InvalidInput: `num_heads` does not divide `dim`.
    """

    def __init__(self, dim: int, *, num_heads: int, bias: bool = False):
        super().__init__()
        checks.head_dim(type(self).__name__, dim, num_heads)
        self.dim = self.out_dim = dim
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=bias)
        self.out = nn.Linear(dim, dim, bias=bias)
        init_linear_(self.qkv)
        init_linear_(self.out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, H, W, dim)."""
        attended = attend(*self._packed(x)).transpose(1, 2)
        return apply_linear(self.out, self._gated(x, attended.reshape(x.shape)))

    def attention_map(self, x: Tensor) -> Tensor:
        """The softmax of every position over the map: (B, H, W, h, H, W), at least fp32."""
        query, key, _ = self._packed(x)
        logits = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        shares = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)
        return shares.transpose(1, 2).unflatten(-1, x.shape[1:3]).unflatten(1, x.shape[1:3])

    def attention_received(self, x: Tensor) -> Tensor:
        """What each position gets from all: (B, H, W), 1 where attention is even."""
        return self.attention_map(x).mean(3).sum((1, 2))

    def attention_rows(self, x: Tensor) -> PositionRows:
        """Where each position looks: the softmax, mean over heads."""
        return whole_map_rows(self.attention_map(x))

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size` = (B, H, W, dim)."""
        n = size[1] * size[2]
        return math.prod(size) * (4 * self.dim + 2 * n)

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: queries, keys, values and what they become; no scores."""
        return 4 * math.prod(size)

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        return f"{self.dim}, num_heads={self.num_heads}"

    def _packed(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (B, h, H W, d) each."""
        checks.channels_last_map(type(self).__name__, x, self.dim, 2)
        packed = apply_linear(self.qkv, x).flatten(1, 2).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, value


ROW = MixerRow(
    FullAttention2d,
    About(
        title="Attention Is All You Need",
        authors="Vaswani, Shazeer, Parmar et al.",
        venue="NeurIPS 2017",
        arxiv="1706.03762",
        read="timm 1.0.31's Attention (Apache-2.0), the layer of its vision transformers",
        differs="no bias unless asked for",
        status="exact",
    ),
    Example((5, 7), {"num_heads": 2}),
    Traits(2, heads=True),
    {"the_order_of_positions_counts": "it knows no positions"},
)
