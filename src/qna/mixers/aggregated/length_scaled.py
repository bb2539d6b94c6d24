"""Cosine attention of the whole map, whose queries grow with the number of keys."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core import checks
from qna.mixers.aggregated import attention
from qna.mixers.aggregated.grid import PooledAxis, pooled_axes
from qna.mixers.aggregated.position_bias import ContinuousPositionBias
from qna.mixers.aggregated.queries import LengthScaledQueries, unit
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.attend import transformed
from qna.parts.head_gate import GatedHeads
from qna.parts.linear import apply_linear
from qna.parts.rows import PositionRows, whole_map_rows


class LengthScaledAttention2d(GatedHeads, nn.Module):
    """Length-scaled cosine attention with a query embedding (Shi, "TransNeXt", CVPR 2024), of any map.

    What aggregated attention becomes in a stage whose maps are small: every position attends all n::

        y_i = sum_j softmax_j((q_i + embedding) softplus(temperature) log(n) . k_j + bias of j - i) v_j

    with q and k of length 1. It costs ``4 n C^2 + 2 n^2 C`` multiply-adds and what `ContinuousPositionBias`
    does; the bias, ``heads n^2`` numbers, is formed.

    Args:
        dim: channels of input and output.
        num_heads: heads; divides `dim`.
        pretrain_size: positions per axis of the map in training, by which distances are scaled; None for
            those of the map at hand.
        qkv_bias: whether queries, keys and values have one.
        attn_drop: dropout of the softmax in training.
        proj_drop: dropout of what comes out.

    Raises:
        InvalidInput: `num_heads` does not divide `dim`, or sizes that are none.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        pretrain_size: int | Sequence[int] | None = None,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ):
        super().__init__()
        name = type(self).__name__
        head_dim = checks.head_dim(name, dim, num_heads)
        self.dim = self.out_dim = dim
        self.num_heads = num_heads
        if pretrain_size is not None:
            pretrain_size = checks.per_axis(f"{name}: pretrain_size", pretrain_size, 2, minimum=1)
        checks.rate(name, attn_drop=attn_drop, proj_drop=proj_drop)
        self.attn_drop = attn_drop
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.queries = LengthScaledQueries(num_heads, head_dim)
        self.position_bias = ContinuousPositionBias(num_heads, pretrain_size)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        for linear in (self.qkv, self.proj):
            nn.init.normal_(linear.weight, std=0.02)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, H, W, dim)."""
        q, k, v, bias = self._packed(x)
        dropped = self.attn_drop if self.training else 0.0
        mask = bias.to(q.dtype)[None]
        if transformed():
            shares = (q @ k.transpose(-1, -2) + mask).softmax(-1)
            attended = F.dropout(shares, dropped) @ v
        else:
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropped, scale=1.0)
        if torch.compiler.is_compiling():
            # the fused kernel's order in memory is not that of its decomposition, which exporters view
            attended = attended.clone(memory_format=torch.contiguous_format)
        attended = self._gated(x, attended.transpose(1, 2).reshape(x.shape))
        return self.proj_drop(apply_linear(self.proj, attended))

    def attention_map(self, x: Tensor) -> Tensor:
        """The softmax of every position over the map: (B, H, W, h, H, W), at least fp32."""
        q, k, _, bias = self._packed(x)
        dtype = torch.promote_types(q.dtype, torch.float32)
        shares = (q.to(dtype) @ k.to(dtype).transpose(-1, -2) + bias.to(dtype)).softmax(-1)
        return shares.transpose(1, 2).unflatten(-1, x.shape[1:3]).unflatten(1, x.shape[1:3])

    def attention_rows(self, x: Tensor) -> PositionRows:
        """Where each position looks: the softmax, mean over heads."""
        return whole_map_rows(self.attention_map(x))

    def attention_received(self, x: Tensor) -> Tensor:
        """What each position gets from all: (B, H, W), 1 where attention is even."""
        return self.attention_map(x).mean(3).sum((1, 2))

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that the authors' training exempts from decay."""
        cpb = {f"position_bias.{name}" for name, _ in self.position_bias.named_parameters()}
        return {"queries.embedding", "queries.temperature"} | cpb

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size` = (B, H, W, dim)."""
        n = size[1] * size[2]
        return math.prod(size) * (4 * self.dim + 2 * n) + self.position_bias.macs(self._axes(size))

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: queries and keys twice, values, what they become, and the bias."""
        n = size[1] * size[2]
        return 6 * math.prod(size) + self.num_heads * n * n

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        return f"{self.dim}, num_heads={self.num_heads}, pretrain_size={self.position_bias.pretrain_size}"

    @staticmethod
    def _axes(size: Sequence[int]) -> tuple[PooledAxis, PooledAxis]:
        """Every position of a map (B, H, W, C) is a cell."""
        space = tuple(size[1:3])
        return pooled_axes(space, space)

    def _packed(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Scaled queries, unit keys and values, (B, h, H W, d) each, and the bias (h, H W, H W)."""
        checks.channels_last_map(type(self).__name__, x, self.dim, 2)
        q, k, v = apply_linear(self.qkv, x).unflatten(-1, (3, self.num_heads, -1)).unbind(-3)
        # of a sum, not of a product of sizes, which a recorder would keep
        keys = x.new_ones(x.shape[1:3], dtype=torch.promote_types(x.dtype, torch.float32)).sum()
        packed = (self.queries(unit(q), keys), unit(k), v)
        q, k, v = (t.flatten(1, 2).transpose(1, 2) for t in packed)
        return q, k, v, self.position_bias(self._axes(x.shape))


ROW = MixerRow(
    LengthScaledAttention2d,
    attention.ROW.about,
    Example((5, 7), {"num_heads": 2, "pretrain_size": 7}),
    Traits(2, heads=True),
)
