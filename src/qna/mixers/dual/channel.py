"""Attention of channels to channels, from products of the channels as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from qna._core import checks
from qna._core.errors import check_choice
from qna.mixers.dual.position import DANET, DAUNET, KNOWS_NO_POSITIONS
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.precision import without_autocast


class ChannelAttention(nn.Module):
    """What `ChannelAttention2d` and `ChannelAttention3d` have in common: DANet's channel attention.

    Fu et al., CVPR 2019, equations 3 and 4. X (n, C) is the map, a row for each position; there is no linear
    map. Products of channels, a softmax along the rows, and the map again::

        E = X^T X                                  C x C, summed over all positions
        A = softmax(max_row(E) - E)  = softmax(-E)             weigh="dissimilar"
        A = softmax(E)                                         weigh="similar"
        Y = X + gamma X A^T                                    sources="columns"
        Y = X + gamma X A                                      sources="rows"

    DANet's code, and the self-guided attention after it, weigh dissimilar channels most, and a channel sums
    what its row of A points at. DAUNet weighs similar ones, and its rows are sources: what a channel gets are
    weights of a column of A, which need not sum to 1. gamma is one number, 0 at first.

    E grows with the number of positions and its softmax soon has one entry; sums and softmax are in single
    precision at least, also under autocast. It knows no positions. With n positions and C channels it costs
    ``2 n C^2`` multiply-adds.

    Args:
        dim: channels of input and output.
        weigh: which channels weigh most.
        sources: what of A names the channels that are summed.

    Raises:
        InvalidInput: `dim` is not positive.
        UnknownName: `weigh` or `sources` is none of theirs.
    """

    axes: ClassVar[int]

    def __init__(
        self,
        dim: int,
        *,
        weigh: Literal["dissimilar", "similar"] = "dissimilar",
        sources: Literal["columns", "rows"] = "columns",
    ):
        super().__init__()
        checks.positive(type(self).__name__, dim=dim)
        self.dim = self.out_dim = dim
        self.weigh = check_choice("weigh", weigh, ("dissimilar", "similar"))
        self.sources = check_choice("sources", sources, ("columns", "rows"))
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, *space, dim) -> (B, *space, dim)."""
        attention = self.channel_map(x).to(x.dtype)
        if self.sources == "columns":
            attention = attention.transpose(1, 2)
        attended = (x.flatten(1, -2) @ attention).reshape(x.shape)
        return torch.addcmul(x, self.gamma.to(x.dtype), attended.to(x.dtype))

    def channel_map(self, x: Tensor) -> Tensor:
        """A of the map `x`: (B, C, C), at least fp32; rows sum to 1."""
        checks.channels_last_map(type(self).__name__, x, self.dim, self.axes)
        with without_autocast(x.device):
            rows = x.flatten(1, -2).to(torch.promote_types(x.dtype, torch.float32))
            products = rows.transpose(1, 2) @ rows
            # a softmax takes the largest of a row away by itself, whatever its sign
            return (-products if self.weigh == "dissimilar" else products).softmax(-1)

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size` = (B, *space, dim)."""
        return 2 * self.dim * math.prod(size)

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input, in its dtype from single precision on.

        What the channels become and what comes out; or, of a small map, the C x C products and their softmax.
        """
        maps, products = math.prod(size), size[0] * self.dim**2
        return max(2 * maps + products, 2 * products + (self.weigh == "dissimilar") * products)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"{self.dim}, weigh={self.weigh!r}, sources={self.sources!r}"


class ChannelAttention2d(ChannelAttention):
    """Channel attention on maps (B, H, W, C). Arguments of `ChannelAttention`."""

    axes = 2


class ChannelAttention3d(ChannelAttention):
    """Channel attention on volumes (B, D, H, W, C). Arguments of `ChannelAttention`."""

    axes = 3


ROWS = (
    MixerRow(ChannelAttention2d, DANET, Example((5, 7)), Traits(2), KNOWS_NO_POSITIONS),
    MixerRow(
        ChannelAttention3d,
        DAUNET,
        Example((3, 4, 5), {"weigh": "similar", "sources": "rows"}),
        Traits(3),
        KNOWS_NO_POSITIONS,
    ),
)
