"""QnA, query and attend: overlapping windows attended with a few learned queries that all windows share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from qna._core import checks
from qna._core.checks import per_axis
from qna.mixers.learned_query.layer import ABOUT, LearnedQueryLayer
from qna.mixers.learned_query.projection import AttentionInputs, merge_heads
from qna.mixers.row import Example, MixerRow, Traits
from qna.ops import learned_query_attention, packed_learned_query_attention
from qna.ops._shared.window import Window
from qna.parts.linear import apply_linear
from qna.parts.rows import PositionRows, window_sources
from qna.parts.window_softmax import window_softmax


class QnA(LearnedQueryLayer):
    """Learned-query attention (Arar et al., CVPR 2022): what `QnA1d`, `QnA2d` and `QnA3d` have in common.

    Every window of the map is attended with the same `num_queries` learned queries per head; the queries'
    answers are weighted per tap and summed. With n positions, C channels, L queries, h heads and windows of K
    taps, the projections cost n C (2 C + L h) multiply-adds and the windows of the order of n K (C + L h);
    its memory does not depend on K.

    Args:
        dim: channels of the input.
        num_heads: heads at `dim` channels; head dim ``dim // num_heads`` stays, heads grow with `out_dim`.
        kernel_size: taps of the window; an integer or one per axis, even or odd, also larger than the map.
        num_queries: learned queries per head.
        stride: positions between windows; an integer or one per axis. n positions become ceil(n / stride).
        dilation: positions between taps; an integer or one per axis.
        out_dim: channels of the output; None for `dim`, or ``2 * dim`` where any stride is above 1 (the
            paper's down-sampling form).
        position: "relative" (learned, from zero), "contextual", "absolute" or "none"; see `position`.
        query_weight: "normal" (learned, from N(0, 0.02)), "elementwise", "posneg", "ones", "avg" or "none";
            see `query_weight`.
        bias: whether values and output have a bias; a key bias would cancel in the softmax.
        normalize_query: bring each head's query to unit length before the division by sqrt(head dim).
        backend: backend of the op; None takes the fastest that can run.

    Raises:
        InvalidInput: `num_heads` does not divide `dim`, `out_dim` is no multiple of the head dim, a size is
            not positive, or a mode is unknown.
    """

    axes: ClassVar[int]

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        kernel_size: int | Sequence[int],
        num_queries: int = 2,
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        out_dim: int | None = None,
        position: str = "relative",
        query_weight: str = "normal",
        bias: bool = False,
        normalize_query: bool = True,
        backend: str | None = None,
    ):
        kernel = per_axis("kernel_size", kernel_size, self.axes, minimum=1)
        strides = per_axis("stride", stride, self.axes, minimum=1)
        if out_dim is None:
            out_dim = dim if set(strides) == {1} else 2 * dim
        super().__init__(
            dim,
            kernel,
            num_heads=num_heads,
            num_queries=num_queries,
            out_dim=out_dim,
            position=position,
            query_weight=query_weight,
            bias=bias,
            normalize_query=normalize_query,
        )
        self.kernel_size = kernel
        self.stride = strides
        self.dilation = per_axis("dilation", dilation, self.axes, minimum=1)
        self.backend = backend

    def forward(self, x: Tensor) -> Tensor:
        """(B, *space, dim) -> (B, *space', out_dim) with ``space' = ceil(space / stride)``."""
        checks.channels_last_map(type(self).__name__, x, self.dim, self.axes)
        attended = packed_learned_query_attention(
            *self.project(x), stride=self.stride, dilation=self.dilation, backend=self.backend
        )
        return apply_linear(self.out, merge_heads(attended))

    def attention_inputs(self, x: Tensor) -> AttentionInputs:
        """What is attended of the map `x`, as the op takes it: scores, value, bias, weight."""
        checks.channels_last_map(type(self).__name__, x, self.dim, self.axes)
        return self.project(x).split()

    def attention_map(self, x: Tensor) -> Tensor:
        """The softmax of every window, before the query weights.

        Returns:
            (B, *space', L, h, *kernel), at least fp32: a window's shares sum to 1, and are 0 outside the map.
        """
        scores, _, bias, _ = self.attention_inputs(x)
        return window_softmax(scores, bias, self._window(x))

    def attention_rows(self, x: Tensor) -> PositionRows:
        """Where each window looks: its softmax, mean over queries and heads, before the query weights."""
        axes = len(self.kernel_size)
        shares = self.attention_map(x).mean((axes + 1, axes + 2))  # B, *space', *kernel
        return PositionRows(
            shares.flatten(axes + 1).flatten(1, axes),
            window_sources(x.shape[1:-1], self._window(x), x.device),
        )

    @torch.no_grad()
    def attention_received(self, x: Tensor) -> Tensor:
        """What each position gets from all windows, queries and heads that see it.

        Returns:
            (B, *space), at least fp32: 1 is what a position gets where every window attends evenly, 0 is a
            position that no window sees.
        """
        scores, _, bias, _ = self.attention_inputs(x)
        dtype = torch.promote_types(scores.dtype, torch.float32)
        scores, bias = scores.to(dtype), bias.to(dtype)
        even = self._received(torch.zeros_like(scores[:1]), torch.zeros_like(bias))
        return torch.where(
            even > 0, self._received(scores, bias) / even.clamp_min(torch.finfo(dtype).tiny), 0
        )

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size` = (B, *space, dim), of the method as the paper evaluates it.

        Scores, values, the product of each value with L exponentials, one depth-wise convolution of L C
        channels for the numerator and one of L h for the denominator, and the output projection. Kernels that
        evaluate the same sums with less work are not credited for it.
        """
        n, n_out = self._positions(size)
        inner, taps = self.out_dim, math.prod(self.kernel_size)
        Lh, LC = self.num_queries * self.num_heads, self.num_queries * inner
        projections = n * self.dim * (inner + Lh) + n_out * inner * inner
        windows = n * LC + n_out * taps * (LC + Lh)
        return projections + windows + self.project.query_macs()

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: what was attended, and its values and scores, or the output."""
        n, n_out = self._positions(size)
        inner = self.out_dim
        return n_out * inner + max(n * (inner + self.num_queries * self.num_heads), n_out * inner)

    def _positions(self, size: Sequence[int]) -> tuple[int, int]:
        """Positions of all maps of the batch, before and after."""
        out = (-(-n // stride) for n, stride in zip(size[1:-1], self.stride, strict=True))
        return math.prod(size[:-1]), size[0] * math.prod(out)

    def _window(self, x: Tensor) -> Window:
        return Window.over(
            x.shape[1:-1], self.kernel_size, stride=self.stride, padding="same", dilation=self.dilation
        )

    @torch.enable_grad()
    def _received(self, scores: Tensor, bias: Tensor) -> Tensor:
        # the attention that a position receives is the derivative of all outputs by its value
        value = scores.new_ones(*scores.shape[:-2], scores.shape[-1], 1).requires_grad_()
        attended = learned_query_attention(
            scores, value, bias, stride=self.stride, dilation=self.dilation, backend="reference"
        )
        (received,) = torch.autograd.grad(attended.sum(), value)
        return received.sum((-1, -2))

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        return (
            f"{self.dim}, out_dim={self.out_dim}, num_heads={self.num_heads}, "
            f"kernel_size={self.kernel_size}, num_queries={self.num_queries}, stride={self.stride}, "
            f"dilation={self.dilation}"
        )


class QnA1d(QnA):
    """QnA on sequences: (B, N, C) -> (B, N', C'). Arguments as for `QnA`."""

    axes = 1


class QnA2d(QnA):
    """QnA on images: (B, H, W, C) -> (B, H', W', C'). Arguments as for `QnA`."""

    axes = 2


class QnA3d(QnA):
    """QnA on volumes or clips: (B, D, H, W, C) -> (B, D', H', W', C'). Arguments as for `QnA`."""

    axes = 3


ROWS = tuple(
    MixerRow(build, ABOUT, Example(space, {"num_heads": 2, "kernel_size": kernel}), traits)
    for build, space, kernel, traits in (
        (QnA1d, (9,), 3, Traits(1, heads=True, strided=True)),
        (QnA2d, (5, 7), 3, Traits(2, heads=True, strided=True)),
        (QnA3d, (3, 4, 5), (1, 3, 3), Traits(3, heads=True, strided=True)),
    )
)
