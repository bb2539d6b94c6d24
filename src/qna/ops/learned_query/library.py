"""The op's kernels as `torch.library` ops: what they take, and what is allocated for them.

They take scores (B, *space, L, h) and value (B, *space, h, d), or no scores and a value that holds both,
(B, *space, d + L, h). The gradient of such a value is one buffer too, so no copy stands between a kernel and
the projection that made its inputs.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from qna.ops._shared.kernel_op import KernelOp
from qna.ops._shared.window import Window
from qna.ops.learned_query.flops import backward_flops, forward_flops
from qna.ops.learned_query.layout import empty_like, unpack

Maybe = Tensor | None


class LearnedQuery(KernelOp):
    """Kernels get (scores, value, bias, weight), output and log-sum-exp, a `Window` and the factor."""

    name = "learned_query"
    function = "qna.ops.learned_query_attention"
    maps = ("scores?", "value")
    parameters = ("bias", "weight?")
    options = ("SymInt[] geometry",)

    def encode(self, window: Window, factor: tuple[int, ...]) -> tuple:
        """Window and factor as one flat list."""
        return (window.flat + factor,)

    def decode(self, parameters: tuple[Maybe, ...], geometry: list[int]) -> tuple:
        """Both again."""
        kernel = parameters[0].shape[:-2]  # pyright: ignore[reportOptionalMemberAccess]
        axes = len(kernel)
        return Window.from_flat(kernel, geometry[:-axes]), tuple(geometry[-axes:])

    def parts(self, maps: tuple[Maybe, ...], parameters: tuple[Maybe, ...]) -> tuple[Maybe, ...]:
        """Scores and value."""
        return unpack(*maps, parameters[0])  # pyright: ignore

    def empty_output(
        self,
        scores: Tensor,
        value: Tensor,
        bias: Tensor,
        weight: Maybe,
        window: Window,
        factor: tuple[int, ...],
    ) -> Tensor:
        """(B, *space', h, d), in the memory layout of `value`."""
        return empty_like(value, [n * f for n, f in zip(window.out, factor, strict=True)])

    def empty_kept(
        self,
        output: Tensor,
        scores: Tensor,
        value: Tensor,
        bias: Tensor,
        weight: Maybe,
        window: Window,
        factor: tuple[int, ...],
    ) -> Tensor:
        """The fp32 log-sum-exp of every window; +inf where it holds no position.

        (G, B, *windows, L / G, h): a map for each of the G = prod(factor) outputs of a window.
        """
        number, (queries, heads) = math.prod(factor), bias.shape[-2:]
        shape = (number, value.shape[0], *window.out, queries // number, heads)
        return value.new_empty(shape, dtype=torch.float32)

    def empty_grads(self, scores: Maybe, value: Tensor) -> tuple[Maybe, ...]:
        """Of scores and value, or one buffer for both."""
        if scores is None:
            return None, value.new_empty(value.shape)
        return scores.new_empty(scores.shape), empty_like(value, value.shape[1:-2])

    def forward_flops(
        self, scores: Tensor, value: Tensor, bias: Tensor, weight: Maybe, *geometry: Any
    ) -> int:
        """As `flops.forward_flops`."""
        return forward_flops(value.shape, bias.shape, *geometry)

    def backward_flops(
        self, scores: Tensor, value: Tensor, bias: Tensor, weight: Maybe, *geometry: Any
    ) -> int:
        """As `flops.backward_flops`."""
        return backward_flops(value.shape, bias.shape, *geometry)


OP = LearnedQuery()
