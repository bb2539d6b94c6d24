"""Attention of the whole map with fewer matrices than four."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from qna._core import checks
from qna._core.about import About
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.minimal_attention import MinimalAttention
from qna.parts.rows import PositionRows


class _MinimalMixer(MinimalAttention):
    """`MinimalAttention` of all positions of a map (B, *space, C)."""

    axes: ClassVar[int]

    def forward(self, x: Tensor) -> Tensor:
        """(B, *space, dim) -> the same."""
        return super().forward(self._tokens(x)).reshape(x.shape)

    def attention_map(self, x: Tensor) -> Tensor:
        """The softmax of every position over the map: (B, *space, h, *space), at least fp32."""
        space = x.shape[1:-1]
        shares = self.weights(self._tokens(x)).transpose(1, 2)
        return shares.reshape(x.shape[0], *space, self.num_heads, *space)

    def attention_received(self, x: Tensor) -> Tensor:
        """What each position gets from all: (B, *space), 1 where attention is even."""
        return self.weights(self._tokens(x)).mean(1).sum(1).reshape(x.shape[:-1])

    def attention_rows(self, x: Tensor) -> PositionRows:
        """Where each position looks: the softmax, mean over heads."""
        shares = self.weights(self._tokens(x)).mean(1)
        n = shares.shape[-1]
        return PositionRows(shares, torch.arange(n, device=x.device).expand(n, -1))

    def _tokens(self, x: Tensor) -> Tensor:
        checks.channels_last_map(type(self).__name__, x, self.dim, self.axes)
        return x.flatten(1, -2)


class MinimalAttention1d(_MinimalMixer):
    """Reduced attention of all positions of a sequence, (B, N, C) -> the same; see `MinimalAttention2d`.

    Not causal: every position sees those behind it too.

    Args:
        dim: channels of input and output.
        num_heads: heads; divides `dim`.
        qk: "full", "collapsed" or "symmetric".
        value: "full", "collapsed" or "none".
        bias: whether linear maps have biases.
        attn_drop: dropout of the softmax's weights, in training.

    Raises:
        UnknownName: for a form that there is not.
        InvalidInput: `num_heads` does not divide `dim`, or `attn_drop` is no rate below 1.
    """

    axes = 1


class MinimalAttention2d(_MinimalMixer):
    """Reduced attention (Bermeitinger et al., 2024) of all positions of a map, (B, H, W, C) -> the same.

    As it is made without arguments, the minimum: ``y = softmax((x W + b) x^T / sqrt(C)) x``, one matrix where
    attention has four, and means of positions come out. `qna.parts.minimal_attention.MinimalAttention` has
    the equations of all forms, their parameters and multiply-adds.

    It knows no positions, and it takes no mask: whoever wants some tokens unseen, or those behind, puts the
    adapter `minimal` into a vision transformer, where masks pass as they did.

    Args:
        dim: channels of input and output.
        num_heads: heads; divides `dim`. With several, collapsed matrices are one for each head.
        qk: "full", "collapsed" or "symmetric".
        value: "full", "collapsed" or "none".
        bias: whether linear maps have biases.
        attn_drop: dropout of the softmax's weights, in training.

    Raises:
        UnknownName: for a form that there is not.
        InvalidInput: `num_heads` does not divide `dim`, or `attn_drop` is no rate below 1.
    """

    axes = 2


_ABOUT = About(
    title="Reducing the Transformer Architecture to a Minimum",
    authors="Bermeitinger, Hrycej, Pavone et al.",
    venue="SciTePress 2024",
    arxiv="2410.13732",
    read="the abstract; a third party's re-implementation, Abdennacer-Badaoui/"
    "Reducing_the_Transformer_Architecture_to_a_Minimum at 551f6b9 (no licence). The authors' code was not "
    "found",
    differs="equal to the re-implementation where that runs; its collapsed forms fail with several heads, "
    "which here take a matrix each, and its triangles begin with normal entries, at which attention sees one "
    "token alone. Values may be collapsed by themselves",
    status="formula",
)
_UNORDERED = {"the_order_of_positions_counts": "it knows no positions"}
ROWS = (
    MixerRow(
        MinimalAttention1d,
        _ABOUT,
        Example((11,), {"num_heads": 2, "qk": "symmetric", "value": "full"}),
        Traits(1, heads=True),
        _UNORDERED,
    ),
    MixerRow(MinimalAttention2d, _ABOUT, Example((5, 7)), Traits(2, heads=True), _UNORDERED),
)
