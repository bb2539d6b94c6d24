"""Attention inside windows whose queries the whole image gives."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from qna._core import checks
from qna._core.about import About
from qna._core.errors import InvalidInput
from qna.mixers.global_context.query import GlobalQuery
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.open_size import at_most, is_open
from qna.parts.resize import cubic_matrix, resample
from qna.parts.rows import PositionRows
from qna.parts.windowed import Tiling, WindowedAttention, Windows


class GlobalContextAttention2d(WindowedAttention):
    """GC ViT's global self-attention (Hatamizadeh et al., ICML 2023) of maps of any size.

    Windows of w x w positions tile the map. Keys and values are a window's own; the query of a position is
    that of its place p in the window, from a map g of w x w that all windows of an image share::

        y = W_o softmax(g_p K^T / sqrt(d) + b) V        K, V = W_k x, W_v x of the window

    No linear map of queries: g is one already. b is Swin's table of a bias for each offset. By itself the
    mixer makes g of its input with a `GlobalQuery`; in a stage of GC ViT one g is made for all blocks, and
    given to each.

    Any height and width: keys and values are filled up behind the map's end to whole windows, and what is
    filled up is no key. Along an axis shorter than the window there is one window, of the map's positions. A
    g that has not the size of a window is resampled to it with Keys' cubic kernel, widened where g shrinks.

    n positions of C channels with windows of K cost ``3 n C^2 + 2 n K C`` multiply-adds, beside the
    `GlobalQuery`: n C^2 less than windows with queries of their own.

    Args:
        dim: channels of input and output.
        num_heads: heads; divides `dim`.
        window_size: height and width of a window; an integer for both.
        halvings: of the `GlobalQuery`; None for a mixer without one, which is given g in each call.
        bias: whether keys, values and output have a bias.

    Raises:
        InvalidInput: `num_heads` does not divide `dim`, a size is not positive, `halvings` is negative; in a
            call, a g where the mixer makes its own, none where it does not, or one of other images or
            channels.
    """

    kv: nn.Linear

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        window_size: int | Sequence[int],
        halvings: int | None = 0,
        bias: bool = True,
    ):
        super().__init__(
            dim,
            num_heads=num_heads,
            window_size=window_size,
            projection=("kv", 2),
            bias=bias,
            border="mask",
        )
        assert self.position_table is not None
        nn.init.normal_(self.position_table.data, std=0.02)
        self.global_query = None if halvings is None else GlobalQuery(dim, halvings)

    def forward(self, x: Tensor, query: Tensor | None = None) -> Tensor:
        """(B, H, W, dim), and g (B, h, w, dim) where the mixer makes none -> (B, H, W, dim)."""
        return self._attended(self._windows(x, query), x)

    def attention_map(self, x: Tensor, query: Tensor | None = None) -> Tensor:
        """The softmax of every position over its own window.

        Returns:
            (B, H, W, h, *window), at least fp32; 0 outside the map. Where the map is smaller than a window,
            `window` is the map.
        """
        return self._shares(self._windows(x, query), x.shape)

    def attention_received(self, x: Tensor, query: Tensor | None = None) -> Tensor:
        """What each position gets from all positions of its window: (B, H, W), 1 where attention is even."""
        return self._received(self.attention_rows(x, query), x.shape)

    def attention_rows(self, x: Tensor, query: Tensor | None = None) -> PositionRows:
        """Where each position looks in its window: the softmax, mean over heads.

        What the query is made of is not told.
        """
        return self._rows(self.attention_map(x, query))

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size` = (B, H, W, dim), padding included; resampling g is left out."""
        made = 0 if self.global_query is None else self.global_query.macs(size)
        return size[0] * (self._projected(size) + self._products(size)) + made

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: keys and values twice, while they are brought into windows; g before.

        And where some position of a window is no key, a mask for each window, which the images share.
        """
        windows = 5 * size[0] * self._padded(size) * self.dim + self._mask_elements(size)
        if self.global_query is None:
            return windows
        # of its first block: the convolved map, before and behind the activation, and the weighed one
        return max(windows + math.prod(self.global_query.out_size(size)), 3 * math.prod(size))

    def _windows(self, x: Tensor, query: Tensor | None) -> Windows:
        checks.channels_last_map(type(self).__name__, x, self.dim, 2)
        tilings = self._tilings(x.shape)
        key, value = self._packed(self.kv, x, tilings).unbind(0)
        shared = self._shared_query(self._given(x, query), x, tilings).to(key.dtype)
        windows = tilings[0].tiles * tilings[1].tiles
        # the trap: an image's windows follow each other, so that the copies of its query must, too
        copies = shared[:, None].expand(-1, windows, -1, -1, -1)
        hides = any(tiling.hides for tiling in tilings)
        copies = copies.flatten(1, 2) if hides else copies.flatten(0, 1)
        return Windows(copies, key, value, self._mask(tilings, key), tilings)

    def _given(self, x: Tensor, query: Tensor | None) -> Tensor:
        """The map g, made or given."""
        name = type(self).__name__
        if self.global_query is not None:
            if query is not None:
                raise InvalidInput(
                    f"{name} makes its own query; build it with halvings=None to give it one in each call"
                )
            return self.global_query(x)
        if query is None:
            raise InvalidInput(
                f"{name} was built with halvings=None and must be given a query, (B, h, w, {self.dim})"
            )
        checks.channels_last_map(f"{name}'s query", query, self.dim, 2)
        if not is_open(query.shape[0]) and query.shape[0] != x.shape[0]:
            raise InvalidInput(
                f"{name} must get a query for each of {x.shape[0]} images, got {query.shape[0]}"
            )
        return query

    def _shared_query(self, query: Tensor, x: Tensor, tilings: tuple[Tiling, Tiling]) -> Tensor:
        """g (B, h, w, C) at the size of a window and head by head: (B, heads, n, d)."""
        places = []
        for n, tiling, side in zip(x.shape[1:3], tilings, query.shape[1:3], strict=True):
            if is_open(n) or is_open(side):
                # the window of a recorded graph is whole, also where the map is smaller
                seen = at_most(tiling.window, n)
                inside = torch.arange(tiling.window, device=x.device).clamp_max(seen - 1)
                places.append(cubic_matrix(seen, side, query).index_select(0, inside))
            else:
                places.append(cubic_matrix(tiling.window, side, query))
        if any(map(is_open, (*x.shape, *query.shape))) or any(
            tiling.window != side for tiling, side in zip(tilings, query.shape[1:3], strict=True)
        ):
            query = resample(query, *places)
        return query.flatten(1, 2).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


ROW = MixerRow(
    GlobalContextAttention2d,
    About(
        title="Global Context Vision Transformers",
        authors="Hatamizadeh, Yin, Heinrich et al.",
        venue="ICML 2023",
        arxiv="2206.09959",
        read="a description of the paper and of the authors' code, NVlabs/GCVit at 8e1941f (non-commercial), "
        "which was run beside this and of which nothing is copied; timm 1.0.31 (Apache-2.0)",
        differs="maps of any size, filled up and masked, where the authors' windows must divide them; a "
        "mixer alone makes its query of its own input",
        status="exact",
    ),
    Example((5, 7), {"num_heads": 2, "window_size": 3, "halvings": 1}),
    Traits(2, heads=True),
)
