"""Aggregated attention: the positions around each query and the pooled map, in one softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core import checks
from qna._core.about import About
from qna._core.errors import InvalidInput
from qna.mixers.aggregated.grid import PooledAxis, pool, pooled_axes
from qna.mixers.aggregated.pooled import join_pooled
from qna.mixers.aggregated.position_bias import ContinuousPositionBias
from qna.mixers.aggregated.queries import LengthScaledQueries, unit
from qna.mixers.row import Example, MixerRow, Traits
from qna.ops import neighborhood_attention, neighborhood_av, neighborhood_qk
from qna.ops.neighborhood.geometry import WindowAxis, window_axes
from qna.parts.head_gate import GatedHeads
from qna.parts.image_view import as_image
from qna.parts.linear import apply_linear
from qna.parts.open_size import is_open
from qna.parts.rows import PositionRows, neighborhood_sources, received


class AggregatedAttention2d(GatedHeads, nn.Module):
    """Aggregated attention (Shi, "TransNeXt", CVPR 2024) of maps of any size.

    A query at i sees the positions j of the window around it that lie in the map, and the m cells of the map
    pooled by `pool_ratio`, together n_i keys, in one softmax::

        q'_i   = (q_i + embedding) softplus(temperature) log(n_i)           q, k of length 1
        s_ij   = q'_i . k_j + local_bias[j - i]                             keys around it
        s_ip   = q'_i . k_p + bias of the distance from i to the cell p     keys of LN(pool(GELU(sr x)))
        y_i    = sum_j (share_ij + q_i . tokens[j - i] + token_bias[j - i]) v_j + sum_p share_ip v_p

    The third term's weights come after the softmax and may be negative. Keys and values of positions and of
    cells are of the same linear map. With n positions, C channels and windows of K taps it costs ``5 n C^2 +
    2 m C^2 + 4 n K C + 2 n m C`` multiply-adds less what lies outside, and what `ContinuousPositionBias`
    does; the bias of all pairs, ``heads n m`` numbers, is formed, once for all images.

    Equal to the authors' code where that runs, which is at the size of map that it was built for. Here a
    size is no part of the layer: cells, distances and the numbers of keys follow the map at hand.

    Args:
        dim: channels of input and output.
        num_heads: heads; divides `dim`.
        kernel_size: positions per axis of the window, odd; this and the next three are one, or one per axis.
        pool_ratio: positions of the map per cell; a map that is shorter has one cell.
        pool_size: cells, whatever the size of the map, but no more than it has positions: the cost is then
            linear in n. None for what `pool_ratio` gives.
        pretrain_size: positions of the map in training, by which distances are scaled; None for those of the
            map at hand.
        qkv_bias: whether queries, keys and values have one.
        attn_drop: dropout of the softmax in training, for which all of it is formed.
        proj_drop: dropout of what comes out.

    Raises:
        InvalidInput: `num_heads` does not divide `dim`, or sizes that are none.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        kernel_size: int | Sequence[int] = 3,
        pool_ratio: int | Sequence[int] = 8,
        pool_size: int | Sequence[int] | None = None,
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
        self.kernel_size = checks.per_axis(f"{name}: kernel_size", kernel_size, 2, minimum=1)
        if any(k % 2 == 0 for k in self.kernel_size):
            raise InvalidInput(f"{name}: kernel_size must be odd, got {kernel_size!r}")
        self.pool_ratio = checks.per_axis(f"{name}: pool_ratio", pool_ratio, 2, minimum=1)
        self.pool_size, self.pretrain_size = (
            None if size is None else checks.per_axis(f"{name}: {argument}", size, 2, minimum=1)
            for argument, size in (("pool_size", pool_size), ("pretrain_size", pretrain_size))
        )
        checks.rate(name, attn_drop=attn_drop, proj_drop=proj_drop)
        # no module: where nothing is dropped the softmax is nowhere as a whole
        self.attn_drop = attn_drop
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.queries = LengthScaledQueries(num_heads, head_dim)
        taps = math.prod(self.kernel_size)
        self.local_bias = nn.Parameter(nn.init.normal_(torch.empty(num_heads, taps), std=0.0004))
        self.tokens = nn.Parameter(nn.init.normal_(torch.empty(num_heads, head_dim, taps), std=0.02))
        self.token_bias = nn.Parameter(torch.zeros(num_heads, 1, taps))
        # a convolution of one tap, as the authors' files have it
        self.sr = nn.Conv2d(dim, dim, 1)
        self.act = nn.GELU()
        # of 1e-5, beside norms of 1e-6 in the networks
        self.norm = nn.LayerNorm(dim)
        self.position_bias = ContinuousPositionBias(num_heads, self.pretrain_size)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        # the authors cut all of these at +-2, which is a hundred deviations and more
        for linear in (self.q, self.kv, self.proj):
            nn.init.normal_(linear.weight, std=0.02)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
        nn.init.normal_(self.sr.weight, std=math.sqrt(2 / dim))
        nn.init.zeros_(self.sr.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, H, W, dim)."""
        checks.channels_last_map(type(self).__name__, x, self.dim, 2)
        q = unit(self._heads(apply_linear(self.q, x)))
        k, v = self._keys_values(x)
        pooled = self._keys_values(self._pooled(x))
        scaled = self.queries(q, self._keys_of(x))
        bias = self.position_bias(self._cells(x.shape), zero_first=True)
        # weights of the values around a query that no softmax gives
        weights = torch.einsum("...hd,hdk->...hk", q, self.tokens.to(q.dtype)) + self.token_bias[:, 0].to(
            q.dtype
        )
        if self.training and self.attn_drop:
            shares = F.dropout(self._shares(scaled, k, pooled[0], bias), self.attn_drop).to(v.dtype)
            local, of_cells = shares.split([weights.shape[-1], pooled[1].shape[1]], -1)
            weights = weights + local
            attended = torch.einsum("b...hp,bphd->b...hd", of_cells, pooled[1])
        else:
            local, lse = neighborhood_attention(
                scaled,
                k,
                v,
                kernel_size=self.kernel_size,
                bias=self._local_bias(),
                scale=1.0,
                return_lse=True,
                border="mask",
            )
            attended = join_pooled(local, lse, scaled, *pooled, bias=bias)
        attended = attended + neighborhood_av(weights, v, kernel_size=self.kernel_size, border="mask")
        return self.proj_drop(apply_linear(self.proj, self._gated(x, attended.flatten(-2))))

    def attention_map(self, x: Tensor) -> Tensor:
        """The softmax of every position, formed in plain torch; not what `tokens` add after it.

        Returns:
            (B, H, W, h, K + m), at least fp32: the taps of the window, 0 outside the map, then the cells.
        """
        checks.channels_last_map(type(self).__name__, x, self.dim, 2)
        q = unit(self._heads(apply_linear(self.q, x)))
        k, of_cells = self._keys_values(x)[0], self._keys_values(self._pooled(x))[0]
        scaled = self.queries(q, self._keys_of(x))
        return self._shares(scaled, k, of_cells, self.position_bias(self._cells(x.shape), zero_first=True))

    def attention_rows(self, x: Tensor) -> PositionRows:
        """Where each position looks in the map: the softmax, mean over heads, cells shared out evenly.

        Its memory is quadratic in the number of positions.
        """
        shares = self.attention_map(x).mean(3).flatten(1, 2)
        return self._rows(shares, x.shape)

    def attention_received(self, x: Tensor) -> Tensor:
        """What each position gets from all: (B, H, W), 1 where attention is even."""
        rows, n = self.attention_rows(x), x.shape[1] * x.shape[2]
        _, attended = self._sources(x.shape, x.device)
        cells = rows.shares.new_ones(n, math.prod(axis.cells for axis in self._cells(x.shape)))
        even = torch.cat([attended.to(cells.dtype), cells], 1)
        even = self._rows((even / even.sum(1, keepdim=True))[None], x.shape).shares[0]
        return received(rows, even, n).unflatten(1, x.shape[1:3])

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that the authors' training exempts from decay."""
        cpb = {f"position_bias.{name}" for name, _ in self.position_bias.named_parameters()}
        return {"queries.embedding", "queries.temperature", "local_bias"} | cpb

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size` = (B, H, W, dim)."""
        batch, height, width, C = size
        n, axes = height * width, self._cells(size)
        cells = math.prod(axis.cells for axis in axes)
        pairs = math.prod(axis.pairs() for axis in self._windows((height, width)))
        taps = math.prod(self.kernel_size)
        linear = (5 * n + 2 * cells) * C * C
        # scores and values around it, what the softmax lacks, and cells
        attended = (3 * pairs + n * taps + 2 * n * cells) * C
        return batch * (linear + attended) + self.position_bias.macs(axes)

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input, while the cells are joined: some eight maps, and the bias.

        Queries as they are and scaled, keys with values, normalised keys, what was attended around each
        position, and queries with two channels more.
        """
        batch, height, width, C = size
        n, cells = height * width, math.prod(axis.cells for axis in self._cells(size))
        head_dim = C // self.num_heads
        wider = self.num_heads * ((head_dim + 2 + 7) // 8 * 8)
        return batch * n * (6 * C + 2 * wider) + self.num_heads * n * (cells + 1)

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        return (
            f"{self.dim}, num_heads={self.num_heads}, kernel_size={self.kernel_size}, "
            f"pool_ratio={self.pool_ratio}, pool_size={self.pool_size}, pretrain_size={self.pretrain_size}"
        )

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1))

    def _keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Unit keys and values of a map or of its cells: (B, ..., h, d) each."""
        # the first half are keys: of a split by head they would be others
        k, v = apply_linear(self.kv, x).chunk(2, -1)
        return unit(self._heads(k)), self._heads(v)

    def _pooled(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, cells, C)."""
        from_map = self.act(self.sr(as_image(x)).movedim(1, -1))
        return self.norm(pool(from_map, self._cells(x.shape)).flatten(1, 2))

    def _cells(self, size: Sequence[int]) -> tuple[PooledAxis, PooledAxis]:
        """How a map of `size` = (B, H, W, C) is pooled."""
        space = tuple(size[1:3])
        least: Any = torch.sym_max if any(map(is_open, space)) else max
        if self.pool_size is not None:
            most: Any = torch.sym_min if any(map(is_open, space)) else min
            return pooled_axes(space, tuple(most(n, m) for n, m in zip(space, self.pool_size, strict=True)))
        return pooled_axes(
            space, tuple(least(n // r, 1) for n, r in zip(space, self.pool_ratio, strict=True))
        )

    def _windows(self, space: Sequence[int]) -> tuple[WindowAxis, ...]:
        return window_axes(type(self).__name__, space, self.kernel_size, border="mask")

    def _keys_of(self, x: Tensor) -> Tensor:
        """Keys that each query has, (H, W): those around it that are in the map, and the cells."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        down, across = (
            axis.in_map(torch.arange(axis.size, device=x.device))[1].to(dtype)
            for axis in self._windows(x.shape[1:3])
        )
        cells = [axis.cells for axis in self._cells(x.shape)]
        return down[:, None] * across + x.new_ones(cells, dtype=dtype).sum()

    def _local_bias(self) -> Tensor:
        """As the op has it, by offset from query to key: those of a window that stays are its middle."""
        rows, columns = self.kernel_size
        margins = (columns // 2, columns // 2, rows // 2, rows // 2)
        return F.pad(self.local_bias.unflatten(1, self.kernel_size), margins)

    def _shares(self, scaled: Tensor, k: Tensor, of_cells: Tensor, bias: Tensor) -> Tensor:
        """The softmax over taps and cells: (B, H, W, h, K + m), at least fp32."""
        dtype = torch.promote_types(scaled.dtype, torch.float32)
        scaled, k, of_cells, bias = (t.to(dtype) for t in (scaled, k, of_cells, bias))
        around = neighborhood_qk(
            scaled, k, kernel_size=self.kernel_size, bias=self._local_bias(), scale=1.0, border="mask"
        )
        far = torch.einsum("b...hd,bphd->b...hp", scaled, of_cells)
        far = far + bias[..., 1:].transpose(0, 1).unflatten(0, scaled.shape[1:3])
        return torch.cat([around, far], -1).softmax(-1)

    def _sources(self, size: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
        return neighborhood_sources(self._windows(size[1:3]), size[1:3], device)

    def _rows(self, shares: Tensor, size: Sequence[int]) -> PositionRows:
        """Rows of shares (B, n, K + m)."""
        sources, _ = self._sources(size, shares.device)
        n, taps = sources.shape
        down, across = (axis.averages(shares) for axis in self._cells(size))
        cells = torch.einsum("ph,qw->pqhw", down, across).reshape(-1, n)
        everywhere = torch.arange(n, device=shares.device).expand(n, -1)
        spread = torch.cat([shares[..., :taps], shares[..., taps:] @ cells], -1)
        return PositionRows(spread, torch.cat([sources, everywhere], 1))


ROW = MixerRow(
    AggregatedAttention2d,
    About(
        title="TransNeXt: Robust Foveal Visual Perception for Vision Transformers",
        authors="Shi",
        venue="CVPR 2024",
        arxiv="2311.17132",
        read="the authors' code, DaiShiResearch/TransNeXt at c8a9974 (Apache-2.0), its plain form",
        differs="maps of any size: distances, cells and numbers of keys follow the map, where the authors' "
        "layer is built for one; a map shorter than a cell has one, where theirs has none; the distance is "
        "not divided by zero where pretrain_size is 1",
        status="exact",
    ),
    Example((5, 7), {"num_heads": 2, "pool_ratio": 2, "pretrain_size": 7}),
    Traits(2, heads=True),
)
