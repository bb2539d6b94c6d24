"""Windows of a map attended with learned queries: what a layer does with them, whatever they are for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from qna._core import checks
from qna.mixers.learned_query.layer import LearnedQueryLayer
from qna.mixers.learned_query.projection import AttentionInputs, merge_heads
from qna.ops import learned_query_attention, packed_learned_query_attention
from qna.ops._shared.window import Window
from qna.ops.learned_query.layout import interleave
from qna.parts.head_gate import GatedHeads
from qna.parts.linear import apply_linear
from qna.parts.reach import Reach
from qna.parts.rows import PositionRows, window_sources
from qna.parts.window_softmax import window_softmax


class LearnedQueryWindows(GatedHeads, LearnedQueryLayer):
    """A layer that attends the windows of a map, padded to "same"; a subclass sets the attributes.

    Attributes:
        axes: space axes of its maps.
        kernel_size: taps of the window, per axis.
        stride: positions between windows, per axis.
        dilation: positions between taps, per axis.
        factor: outputs of a window, per axis, between which the queries are shared out.
        backend: of the op; None for the fastest that can run.
    """

    axes: ClassVar[int]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    factor: tuple[int, ...]
    backend: str | None

    def forward(self, x: Tensor) -> Tensor:
        """(B, *space, dim) -> (B, *space', out_dim) with ``space' = ceil(space / stride) * factor``."""
        checks.channels_last_map(type(self).__name__, x, self.dim, self.axes)
        attended = packed_learned_query_attention(
            *self.project(x),
            stride=self.stride,
            dilation=self.dilation,
            factor=self.factor,
            backend=self.backend,
        )
        attended = self._gated(x, merge_heads(attended), heads_last=True)
        return apply_linear(self.out, attended)

    def why_no_head_gate(self) -> str:
        """It takes them where as many positions come out as go in."""
        if self.stride == self.factor == (1,) * self.axes:
            return ""
        return f"with stride={self.stride} and factor={self.factor} it makes other positions than it reads"

    def attention_inputs(self, x: Tensor) -> AttentionInputs:
        """What is attended of the map `x`, as the op takes it: scores, value, bias, weight."""
        checks.channels_last_map(type(self).__name__, x, self.dim, self.axes)
        return self.project(x).split()

    def attention_map(self, x: Tensor) -> Tensor:
        """The softmax of every output's window, before the query weights.

        Returns:
            (B, *space', L, h, *kernel) with the L queries of an output, at least fp32: the shares of a window
            sum to 1, and are 0 outside the map.
        """
        scores, _, bias, _ = self.attention_inputs(x)
        shares = window_softmax(scores, bias, self._window(x.shape))
        return interleave(shares.unflatten(self.axes + 1, (math.prod(self.factor), -1)), self.factor)

    def attention_rows(self, x: Tensor) -> PositionRows:
        """Where each output looks: its softmax, mean over queries and heads, before the query weights."""
        axes, window = self.axes, self._window(x.shape)
        shares = self.attention_map(x).mean((axes + 1, axes + 2))  # B, *space', *kernel
        sources = window_sources(x.shape[1:-1], window, x.device).unflatten(0, window.out)
        number = math.prod(self.factor)
        fine = interleave(sources.unsqueeze(axes).expand(1, *window.out, number, -1), self.factor)
        return PositionRows(shares.flatten(axes + 1).flatten(1, axes), fine.flatten(0, axes))

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
        n, windows, n_out = self._positions(size)
        inner, taps = self.out_dim, math.prod(self.kernel_size)
        Lh, LC = self.num_queries * self.num_heads, self.num_queries * inner
        projections = n * self.dim * (inner + Lh) + n_out * inner * inner
        return projections + n * LC + windows * taps * (LC + Lh) + self.project.query_macs()

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: what was attended, and its values and scores, or the output."""
        n, _, n_out = self._positions(size)
        inner = self.out_dim
        return n_out * inner + max(n * (inner + self.num_queries * self.num_heads), n_out * inner)

    def reach(self, size: Sequence[int]) -> tuple[Reach, ...]:
        """A window for each block of outputs."""
        window = self._window(size)
        settings = zip(*window[:4], self.factor, strict=True)
        return tuple(Reach(s, -before, d * (k - 1) - before, factor) for k, s, d, before, factor in settings)

    def _positions(self, size: Sequence[int]) -> tuple[int, int, int]:
        """Positions, windows and outputs of all maps of the batch."""
        along = (-(-n // stride) for n, stride in zip(size[1:-1], self.stride, strict=True))
        windows = size[0] * math.prod(along)
        return math.prod(size[:-1]), windows, windows * math.prod(self.factor)

    def _window(self, size: Sequence[int]) -> Window:
        return Window.over(
            size[1:-1], self.kernel_size, stride=self.stride, padding="same", dilation=self.dilation
        )

    @torch.enable_grad()
    def _received(self, scores: Tensor, bias: Tensor) -> Tensor:
        # the attention that a position receives is the derivative of all outputs by its value
        value = scores.new_ones(*scores.shape[:-2], scores.shape[-1], 1).requires_grad_()
        attended = learned_query_attention(
            scores,
            value,
            bias,
            stride=self.stride,
            dilation=self.dilation,
            factor=self.factor,
            backend="reference",
        )
        (received,) = torch.autograd.grad(attended.sum(), value)
        return received.sum((-1, -2))
