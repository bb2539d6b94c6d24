"""The op's kernels as `torch.library` ops: what they take, and what is allocated for them.

They take scores (B, *space, L, h) and value (B, *space, h, d), or no scores and a value that holds both,
(B, *space, d + L, h). The gradient of such a value is one buffer too, so no copy stands between a kernel and
the projection that made its inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qna.ops._shared.kernel_op import KernelOp
from qna.ops._shared.window import Window
from qna.ops.learned_query.flops import backward_flops, forward_flops
from qna.ops.learned_query.layout import empty_like, unpack

Maybe = Tensor | None


class LearnedQuery(KernelOp):
    """Kernels get (scores, value, bias, weight), output and log-sum-exp, and a `Window`."""

    name = "learned_query"
    function = "qna.ops.learned_query_attention"
    maps = ("scores?", "value")
    parameters = ("bias", "weight?")
    options = ("SymInt[] window",)

    def encode(self, window: Window) -> tuple:
        """The window as a flat list."""
        return (window.flat,)

    def decode(self, parameters: tuple[Maybe, ...], window: list[int]) -> tuple:
        """The window again."""
        return (Window.from_flat(parameters[0].shape[:-2], window),)  # pyright: ignore[reportOptionalMemberAccess]

    def parts(self, maps: tuple[Maybe, ...], parameters: tuple[Maybe, ...]) -> tuple[Maybe, ...]:
        """Scores and value."""
        return unpack(*maps, parameters[0])  # pyright: ignore

    def empty_output(
        self, scores: Tensor, value: Tensor, bias: Tensor, weight: Maybe, window: Window
    ) -> Tensor:
        """(B, *space', h, d), in the memory layout of `value`."""
        return empty_like(value, window.out)

    def empty_kept(
        self, output: Tensor, scores: Tensor, value: Tensor, bias: Tensor, weight: Maybe, window: Window
    ) -> Tensor:
        """The fp32 log-sum-exp of every window, (B, *space', L, h); +inf where it holds no position."""
        return value.new_empty((*output.shape[:-2], *bias.shape[-2:]), dtype=torch.float32)

    def empty_grads(self, scores: Maybe, value: Tensor) -> tuple[Maybe, ...]:
        """Of scores and value, or one buffer for both."""
        if scores is None:
            return None, value.new_empty(value.shape)
        return scores.new_empty(scores.shape), empty_like(value, value.shape[1:-2])

    def forward_flops(
        self, scores: Tensor, value: Tensor, bias: Tensor, weight: Maybe, window: Window
    ) -> int:
        """As `flops.forward_flops`."""
        return forward_flops(value.shape, bias.shape, window.out)

    def backward_flops(
        self, scores: Tensor, value: Tensor, bias: Tensor, weight: Maybe, window: Window
    ) -> int:
        """As `flops.backward_flops`."""
        return backward_flops(value.shape, bias.shape, window.out)


OP = LearnedQuery()
