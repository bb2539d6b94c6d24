"""Attention of every position of a map or a volume to all, with few channels to compare by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core import checks
from qna._core.about import About
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.attend import attend
from qna.parts.linear import apply_linear
from qna.parts.rows import PositionRows


class PositionAttention(nn.Module):
    """What `PositionAttention2d` and `PositionAttention3d` have in common: DANet's position attention.

    Fu et al., CVPR 2019, equations 1 and 2, as the multi-scale self-guided attention of Sinha and Dolz (JBHI
    2020) and DAUNet (Bouget et al., Front. Radiol. 2021) use it. Of the n positions x_i of a map::

        q, k = W_q x + b_q, W_k x + b_k                  C / reduction channels, at least one
        y_i  = x_i + gamma sum_j softmax_j(q_i k_j) (W_v x_j + b_v)

    The products have no scale. gamma is one number, 0 at first: the layer begins as the identity, and its
    weights learn nothing before gamma has left 0. b_k adds the same to all scores of a position, so it
    changes nothing but by rounding; the authors have it.

    The n x n scores are never formed, neither here nor for the gradient: torch's fused attention walks over
    them in blocks. It wants heads of one width, so queries and keys are filled up with zeros to C channels,
    which leaves all products as they are. At the worst moment 4 n C + n elements live beside the map
    (`held`); the scores of 32 x 32 x 32 positions alone would take 4 GiB in single precision. Only under
    transforms of `torch.func` and tangents that go forward, which fused attention does not follow, are they
    written out.

    It knows no positions. With n positions and C channels it costs ``n C (C + 2 C / reduction) + 2 n^2 C``
    multiply-adds; without the filling up, which pays for the blocks, the last term would be ``(1 + 1 /
    reduction) n^2 C``.

    Args:
        dim: channels of input and output.
        reduction: channels of the input per channel of queries and keys.
        bias: whether queries, keys and values have a bias, as in DANet; DAUNet's have none.

    Raises:
        InvalidInput: a size is not positive.
    """

    axes: ClassVar[int]

    def __init__(self, dim: int, *, reduction: int = 8, bias: bool = True):
        super().__init__()
        checks.positive(type(self).__name__, dim=dim, reduction=reduction)
        self.dim = self.out_dim = dim
        # the authors' quotient is 0 below 8 channels, and their layer empty
        self.key_dim = max(1, dim // reduction)
        self.query = nn.Linear(dim, self.key_dim, bias=bias)
        self.key = nn.Linear(dim, self.key_dim, bias=bias)
        self.value = nn.Linear(dim, dim, bias=bias)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, *space, dim) -> (B, *space, dim)."""
        return torch.addcmul(x, self.gamma.to(x.dtype), self._attended(x))

    def _attended(self, x: Tensor) -> Tensor:
        checks.channels_last_map(type(self).__name__, x, self.dim, self.axes)
        more = self.dim - self.key_dim
        # nothing is named that would then live longer than it is needed
        attended = attend(
            F.pad(self._one_head(self.query, x), (0, more)),
            F.pad(self._one_head(self.key, x), (0, more)),
            self._one_head(self.value, x),
            scale=1.0,
        )
        return attended.reshape(x.shape).to(x.dtype)

    @staticmethod
    def _one_head(layer: nn.Module, x: Tensor) -> Tensor:
        """What a linear layer makes of all positions: (B, 1, n, C')."""
        return apply_linear(layer, x).flatten(1, -2).unsqueeze(1)

    def attention_map(self, x: Tensor) -> Tensor:
        """The softmax of every position over the map: (B, *space, 1, *space), at least fp32; all n x n."""
        checks.channels_last_map(type(self).__name__, x, self.dim, self.axes)
        query, key = (self._one_head(layer, x).squeeze(1) for layer in (self.query, self.key))
        scores = query @ key.transpose(-1, -2)
        shares = scores.to(torch.promote_types(scores.dtype, torch.float32)).softmax(-1)
        space = x.shape[1:-1]
        return shares.unflatten(-1, (1, *space)).unflatten(1, space)

    def attention_received(self, x: Tensor) -> Tensor:
        """What each position gets from all: (B, *space), 1 where attention is even."""
        return self.attention_rows(x).shares.sum(1).unflatten(-1, x.shape[1:-1])

    def attention_rows(self, x: Tensor) -> PositionRows:
        """Where each position looks: the softmax alone, without gamma and without the map that is added."""
        shares = self.attention_map(x).flatten(self.axes + 1).flatten(1, self.axes)
        n = shares.shape[-1]
        return PositionRows(shares, torch.arange(n, device=shares.device).expand(n, -1))

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size` = (B, *space, dim), with queries and keys filled up."""
        n = math.prod(size[1:-1])
        return math.prod(size) * (self.dim + 2 * self.key_dim + 2 * n)

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: queries and keys filled up, values, what they become, and n sums."""
        return 4 * math.prod(size) + math.prod(size[:-1])

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        return f"{self.dim}"


class PositionAttention2d(PositionAttention):
    """Position attention on maps (B, H, W, C). Arguments of `PositionAttention`."""

    axes = 2


class PositionAttention3d(PositionAttention):
    """Position attention on volumes (B, D, H, W, C). Arguments of `PositionAttention`."""

    axes = 3


KNOWS_NO_POSITIONS = {"the_order_of_positions_counts": "it knows no positions"}
_READ = (
    "the authors' code of multi-scale self-guided attention, sinAshish/Multi-Scale-Attention at 96d76f2 (no "
    "licence; run beside this, nothing copied), and of DAUNet, dbouget/mri_brain_tumor_segmentation at "
    "7af4e77 (BSD-2)"
)
DANET = About(
    title="Dual Attention Network for Scene Segmentation",
    authors="Fu, Liu, Tian et al.",
    venue="CVPR 2019",
    arxiv="1809.02983",
    read=_READ,
    differs="at least one channel of queries and keys; the scores of all pairs are never in memory; channels "
    "are compared in single precision at least",
    status="exact",
)
DAUNET = About(
    title="Meningioma Segmentation in T1-Weighted MRI Leveraging Global Context and Attention Mechanisms",
    authors="Bouget, Pedersen, Hosainey et al.",
    venue="Frontiers in Radiology 2021",
    arxiv="2101.07715",
    read=_READ,
    differs="the defaults are DANet's; DAUNet's form is bias=False of positions, weigh='similar' and "
    "sources='rows' of channels; its projections are weights, where the authors' are made anew in each call "
    "and never saved; the scores of all pairs are never in memory",
    status="exact",
)
ROWS = (
    MixerRow(PositionAttention2d, DANET, Example((5, 7), {"reduction": 4}), Traits(2), KNOWS_NO_POSITIONS),
    MixerRow(
        PositionAttention3d,
        DAUNET,
        Example((3, 4, 5), {"reduction": 4, "bias": False}),
        Traits(3),
        KNOWS_NO_POSITIONS,
    ),
)
