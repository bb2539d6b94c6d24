"""Linear attention: keys and values are summed once, and every query reads the sum."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core import checks
from qna._core.about import About
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.head_gate import GatedHeads
from qna.parts.initializers import init_linear_
from qna.parts.linear import apply_linear
from qna.parts.precision import without_autocast
from qna.parts.rows import PositionRows, whole_map_rows


class LinearAttention2d(GatedHeads, nn.Module):
    """L2ViT's enhanced linear attention (Zheng, arXiv 2501.16182) of all positions of a map.

    Of each head, with ``q = ReLU(W_q x)``, ``k = ReLU(W_k x)`` and sums over all n positions::

        y_i = tau  q_i (sum_j k_j^T v_j) / max(q_i . sum_j k_j, clamp)

    Two sums stand for all pairs, so that time and memory grow with n. With C channels and d of a head it
    costs ``n C (4 C + 2 d + 1)`` multiply-adds. It knows no positions: whoever wants them adds convolutions
    before it, as L2ViT does, or a `LocalConcentration2d` after it. Sums are taken in single precision at
    least, whatever the dtype or autocast: halves overflow where maps are large.

    Args:
        dim: channels of input and output.
        num_heads: heads; divides `dim`.
        bias: whether queries, keys, values and output have a bias.
        clamp: the least denominator. At the authors' 100 a query that meets little gets little; on a small
            map nothing is above it, and all outputs are sums over 100. With 0 weights sum to tau, but for a
            query that meets no key, which gets 0 at any clamp.

    Raises:
        InvalidInput: `num_heads` does not divide `dim`, or `clamp` is below 0.
    """

    def __init__(self, dim: int, *, num_heads: int, bias: bool = True, clamp: float = 100.0):
        super().__init__()
        head_dim = checks.head_dim(type(self).__name__, dim, num_heads)
        checks.not_negative(type(self).__name__, clamp=clamp)
        self.dim = self.out_dim = dim
        self.num_heads = num_heads
        self.clamp = clamp
        self.qkv = nn.Linear(dim, 3 * dim, bias=bias)
        # tau; of what comes out, where attention elsewhere scales scores
        self.temperature = nn.Parameter(torch.full((num_heads, 1, 1), head_dim**-0.5))
        self.out = nn.Linear(dim, dim, bias=bias)
        init_linear_(self.qkv)
        init_linear_(self.out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, H, W, dim)."""
        query, key, value = self._packed(x)
        dtype = value.dtype
        exact = torch.promote_types(dtype, torch.float32)
        with without_autocast(x.device):
            key, value = key.to(exact), value.to(exact)
            # keys and values first: no score is formed
            context = key.transpose(-1, -2) @ value * self.temperature.to(exact)
            met = key.sum(-2).unsqueeze(-1)
            # with them goes all that was projected
            del key, value
            query = query.to(exact)
            attended = query @ context / self._bounded(query @ met)
        attended = attended.to(dtype).transpose(1, 2)
        return apply_linear(self.out, self._gated(x, attended.reshape(x.shape)))

    def attention_map(self, x: Tensor) -> Tensor:
        """What share each position has of all that a position meets: (B, H, W, h, H, W), at least fp32.

        Rows sum to 1; the output weighs them by ``tau s / max(s, clamp)``, s being all that is met. A query
        that meets no key counts as even. Unlike the layer, this forms the score of every pair.
        """
        query, key, _ = self._packed(x)
        exact = torch.promote_types(query.dtype, torch.float32)
        with without_autocast(x.device):
            scores = query.to(exact) @ key.to(exact).transpose(-1, -2)
        met = scores.sum(-1, keepdim=True)
        shares = torch.where(met > 0, scores / met, 1 / scores.shape[-1])
        return shares.transpose(1, 2).unflatten(-1, x.shape[1:3]).unflatten(1, x.shape[1:3])

    def attention_received(self, x: Tensor) -> Tensor:
        """What each position gets from all: (B, H, W), 1 where attention is even."""
        return self.attention_map(x).mean(3).sum((1, 2))

    def attention_rows(self, x: Tensor) -> PositionRows:
        """Where each position looks: its shares, mean over heads."""
        return whole_map_rows(self.attention_map(x))

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size` = (B, H, W, dim)."""
        return math.prod(size) * (4 * self.dim + 2 * self.dim // self.num_heads + 1)

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: queries, keys and values, the first two rectified, two brought by heads.

        And the sum. In half precision what is summed is held in single precision too.
        """
        return 7 * math.prod(size) + size[0] * self.dim * self.dim // self.num_heads

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        return f"{self.dim}, num_heads={self.num_heads}, clamp={self.clamp:g}"

    def _packed(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rectified queries and keys, and values: (B, h, H W, d) each."""
        checks.channels_last_map(type(self).__name__, x, self.dim, 2)
        packed = apply_linear(self.qkv, x).flatten(1, 2).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
        return F.relu(query), F.relu(key), value

    def _bounded(self, met: Tensor) -> Tensor:
        """Denominators of what each query meets, none of them 0."""
        # a query that meets nothing has a numerator of 0 as well
        return met.clamp(min=self.clamp) if self.clamp else met.masked_fill(met == 0, 1)


ROW = MixerRow(
    LinearAttention2d,
    About(
        title="The Linear Attention Resurrection in Vision Transformer",
        authors="Zheng",
        venue="arXiv 2025",
        arxiv="2501.16182",
        read="the authors' code, ChuanyangZheng/L2ViT at fad0341 (MIT)",
        differs="the least denominator is an argument; sums are in single precision at least, also under "
        "autocast, where the authors' overflow in half precision",
        status="exact",
    ),
    Example((5, 7), {"num_heads": 2, "clamp": 2.0}),
    Traits(2, heads=True),
    {"the_order_of_positions_counts": "it knows no positions"},
)
