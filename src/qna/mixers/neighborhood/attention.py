"""Neighbourhood attention: each position attends the window of positions around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core import checks
from qna._core.about import About
from qna._core.errors import InvalidInput
from qna.mixers.row import Example, MixerRow, Traits
from qna.ops import neighborhood_attention, neighborhood_av, neighborhood_qk
from qna.ops.neighborhood.geometry import WindowAxis, window_axes
from qna.ops.neighborhood.inputs import NeighborhoodWindow
from qna.parts.head_gate import GatedHeads
from qna.parts.linear import apply_linear
from qna.parts.open_size import is_open
from qna.parts.rows import PositionRows, neighborhood_sources


class NeighborhoodAttention(GatedHeads, nn.Module):
    """What `NeighborhoodAttention1d`, `2d` and `3d` have in common; equations in `qna.ops`.

    Queries, keys and values of one linear map, `qna.ops.neighborhood_attention` over them with a learned bias
    by offset (NAT, Hassani et al., CVPR 2023, equations 1 to 3), and an output projection. A dilation makes
    it DiNAT's (arXiv 2209.15001), a stride GNA's (arXiv 2504.16922), in which queries share windows: the map
    keeps its size. With n positions, C channels and windows of K taps it costs ``4 n C^2 + 2 n K C``
    multiply-adds, less what causal and masked windows do not see; its memory does not depend on K.

    Maps of any size. Where the border clamps, a window must fit: a map that is shorter than ``kernel_size *
    dilation`` along an axis is filled up to it with zeros behind its end, and what comes out is cropped. The
    zeros are projected and attended like positions, and count in `macs`: so do the authors' modules (NATTEN
    up to 0.15, with which the models were trained; later ones refuse such maps).

    Args:
        dim: channels of input and output.
        num_heads: heads; divides `dim`.
        kernel_size: taps of a window, even or odd; this and the next three are one, or one per axis.
        stride: queries that share a window, at most `kernel_size`.
        dilation: positions between neighbouring taps.
        is_causal: whether a query sees nothing after itself.
        border: what a window does that hangs over the map: "clamp", "mask" or "zero", as in the op.
        rel_pos_bias: whether scores have a learned bias by the offset from query to key.
        qkv_bias: whether queries, keys and values have one.
        qk_scale: of the products of queries and keys; None for ``(dim // num_heads) ** -0.5``.
        attn_drop: dropout of the softmax in training, for which all of it is formed: n K numbers per head.
        proj_drop: dropout of what comes out.

    Raises:
        InvalidInput: `num_heads` does not divide `dim`, or windows that are none.
    """

    axes: ClassVar[int]

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        is_causal: bool | Sequence[bool] = False,
        border: str = "clamp",
        rel_pos_bias: bool = True,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ):
        super().__init__()
        name = type(self).__name__
        head_dim = checks.head_dim(name, dim, num_heads)
        self.dim = self.out_dim = dim
        self.num_heads = num_heads
        self.kernel_size = checks.per_axis(f"{name}: kernel_size", kernel_size, self.axes, minimum=1)
        self.dilation = checks.per_axis(f"{name}: dilation", dilation, self.axes, minimum=1)
        self.window: NeighborhoodWindow = {
            "stride": stride,
            "dilation": self.dilation,
            "is_causal": is_causal,
            "border": border,
        }
        windows = window_axes(name, self._spans, self.kernel_size, **self.window)
        self.window["stride"] = tuple(axis.stride for axis in windows)
        self.window["is_causal"] = tuple(axis.causal for axis in windows)
        if qk_scale is not None and not math.isfinite(qk_scale):
            raise InvalidInput(f"{name}: qk_scale must be a finite number or None, got {qk_scale!r}")
        checks.rate(name, attn_drop=attn_drop)
        self.scale = head_dim**-0.5 if qk_scale is None else qk_scale
        # no module: where nothing is dropped the op forms no softmax that one could be called with
        self.attn_drop = attn_drop
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        # by offset from query to key; at a clamped border queries use entries that none in the middle does
        self.rpb = None
        if rel_pos_bias:
            self.rpb = nn.Parameter(torch.empty(num_heads, *(2 * k - 1 for k in self.kernel_size)))
            nn.init.normal_(self.rpb, std=0.02)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        for linear in (self.qkv, self.proj):
            # the authors cut at +-2, which is a hundred deviations
            nn.init.normal_(linear.weight, std=0.02)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, *space, dim) -> (B, *space, dim)."""
        attended = self._attend(*self._project(x)).flatten(-2)
        for axis, size in enumerate(x.shape[1:-1], 1):
            attended = attended.narrow(axis, 0, size)
        return self.proj_drop(apply_linear(self.proj, self._gated(x, attended)))

    def attention_map(self, x: Tensor) -> Tensor:
        """The softmax of every position over the taps of its window, formed in plain torch.

        Returns:
            (B, *space, h, *kernel_size), at least fp32, 0 for taps that are not attended. Zeros behind a map
            that is filled up, and those of the border "zero", have their shares.
        """
        q, k, _ = self._project(x)
        dtype = torch.promote_types(q.dtype, torch.float32)
        shares = self._shares(q.to(dtype), k.to(dtype))
        for axis, size in enumerate(x.shape[1:-1], 1):
            shares = shares.narrow(axis, 0, size)
        return shares.unflatten(-1, self.kernel_size)

    def attention_rows(self, x: Tensor) -> PositionRows:
        """Where each position looks in the map: the softmax, mean over heads.

        What goes to zeros outside the map is shared out among the positions of the window.
        """
        shares = self.attention_map(x).mean(self.axes + 1).flatten(1, self.axes).flatten(2)
        sources, attended = self._sources(x)
        shares = shares * attended
        # a position is in its own window
        return PositionRows(shares / shares.sum(-1, keepdim=True), sources)

    def attention_received(self, x: Tensor) -> Tensor:
        """What each position gets from all windows that hold it: (B, *space), 1 where attention is even."""
        rows, (_, attended) = self.attention_rows(x), self._sources(x)
        n = len(attended)
        even = attended.to(rows.shares.dtype)
        evenly = PositionRows((even / even.sum(-1, keepdim=True))[None], rows.sources)
        received = rows.pull(torch.ones_like(rows.shares[:, :, 0]), n)
        received = received / evenly.pull(torch.ones_like(even[None, :, 0]), n)
        return received.unflatten(1, x.shape[1:-1])

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that the authors' training exempts from decay: the position bias."""
        return set() if self.rpb is None else {"rpb"}

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size` = (B, *space, dim): linear maps, scores and values."""
        space = self._filled_up(size[1:-1])
        pairs = math.prod(axis.pairs() for axis in self._windows(space))
        projections = 3 * math.prod(space) + math.prod(size[1:-1])
        return size[0] * (projections * self.dim**2 + 2 * pairs * self.dim)

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: queries, keys and values, and with them what was attended.

        A map that is filled up lives as long as the values of its projection are made, which is no more.
        """
        return 4 * size[0] * math.prod(self._filled_up(size[1:-1])) * self.dim

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        window = ", ".join(f"{name}={value}" for name, value in self.window.items())
        return (
            f"{self.dim}, num_heads={self.num_heads}, kernel_size={self.kernel_size}, {window}, "
            f"rel_pos_bias={self.rpb is not None}"
        )

    @property
    def _spans(self) -> tuple[int, ...]:
        """Positions that a window spans, per axis."""
        return tuple(k * d for k, d in zip(self.kernel_size, self.dilation, strict=True))

    def _filled_up(self, space: Sequence[int]) -> tuple[int, ...]:
        """Sizes of a map of `space` in which windows fit, where they have to."""
        if self.window.get("border") != "clamp":
            return tuple(space)
        return tuple(map(max, space, self._spans))

    def _windows(self, space: Sequence[int]) -> tuple[WindowAxis, ...]:
        return window_axes(type(self).__name__, space, self.kernel_size, **self.window)

    def _project(self, x: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values of the map, filled up: (B, *space, h, d) each."""
        checks.channels_last_map(type(self).__name__, x, self.dim, self.axes)
        return apply_linear(self.qkv, self._fill_up(x)).unflatten(-1, (3, self.num_heads, -1)).unbind(-3)

    def _fill_up(self, x: Tensor) -> Tensor:
        space = x.shape[1:-1]
        if self.window.get("border") != "clamp":
            return x
        if torch.compiler.is_exporting() and any(map(is_open, space)):
            # without a question about the size, to which a recorder would keep
            for axis, (size, span) in enumerate(zip(space, self._spans, strict=True), 1):
                place = torch.arange(torch.sym_max(size, span), device=x.device)
                inside = (place < size).view(-1, *(1,) * (x.ndim - axis - 1))
                x = torch.where(inside, x.index_select(axis, place.clamp(max=size - 1)), 0)
            return x
        after = [max(span - size, 0) for size, span in zip(space, self._spans, strict=True)]
        if not any(after):
            return x
        return F.pad(x, (0, 0, *(n for more in reversed(after) for n in (0, more))))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if not (self.training and self.attn_drop):
            return neighborhood_attention(
                q, k, v, kernel_size=self.kernel_size, bias=self.rpb, scale=self.scale, **self.window
            )
        shares = F.dropout(self._shares(q, k), self.attn_drop)
        return neighborhood_av(shares, v, kernel_size=self.kernel_size, **self.window)

    def _shares(self, q: Tensor, k: Tensor) -> Tensor:
        """The softmax over all taps: (B, *space, h, taps)."""
        scores = neighborhood_qk(
            q, k, kernel_size=self.kernel_size, bias=self.rpb, scale=self.scale, **self.window
        )
        return scores.softmax(-1)

    def _sources(self, x: Tensor) -> tuple[Tensor, Tensor]:
        space = x.shape[1:-1]
        return neighborhood_sources(self._windows(self._filled_up(space)), space, x.device)


class NeighborhoodAttention1d(NeighborhoodAttention):
    """Neighbourhood attention on sequences: (B, N, C) -> (B, N, C). Arguments of `NeighborhoodAttention`."""

    axes = 1


class NeighborhoodAttention2d(NeighborhoodAttention):
    """Neighbourhood attention on images: (B, H, W, C) as it came. Arguments of `NeighborhoodAttention`."""

    axes = 2


class NeighborhoodAttention3d(NeighborhoodAttention):
    """Neighbourhood attention on volumes or clips, (B, D, H, W, C). Arguments of `NeighborhoodAttention`."""

    axes = 3


ABOUT = About(
    title="Neighborhood Attention Transformer",
    authors="Hassani, Walton, Li et al.",
    venue="CVPR 2023",
    arxiv="2204.07143",
    read="the authors' code, SHI-Labs/NATTEN at v0.14.6, v0.17.1 and 8c8729f (MIT); arXiv 2403.04690 and "
    "2504.16922",
    differs="a position bias also beside causal windows and strides; borders that mask or pad; maps that are "
    "smaller than a window are filled up as NATTEN did up to 0.15, where later ones refuse them",
    status="exact",
)

ROWS = tuple(
    MixerRow(build, ABOUT, Example(space, {"num_heads": 2, **window}), traits)
    for build, space, window, traits in (
        (
            NeighborhoodAttention1d,
            (9,),
            {"kernel_size": 4, "dilation": 2, "is_causal": True},
            Traits(1, heads=True),
        ),
        # plain: what benchmarks enlarge
        (NeighborhoodAttention2d, (5, 7), {"kernel_size": 3}, Traits(2, heads=True)),
        (
            NeighborhoodAttention3d,
            (3, 4, 5),
            {"kernel_size": (1, 3, 4), "stride": (1, 1, 2)},
            Traits(3, heads=True),
        ),
    )
)
