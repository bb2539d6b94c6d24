"""The op's kernels as `torch.library` ops: what they take, and what is allocated for them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from qna.ops._shared.kernel_op import KernelOp
from qna.ops.neighborhood.flops import flops
from qna.ops.neighborhood.geometry import BORDERS, WindowAxis
from qna.ops.neighborhood.inputs import NAME

Maybe = Tensor | None
Axes = tuple[WindowAxis, ...]
_NUMBERS = len(WindowAxis._fields)


def encode_axes(axes: Axes) -> list[int]:
    """Windows as a flat list: what torch's schemas take."""
    return [n for *numbers, causal, border in axes for n in (*numbers, int(causal), BORDERS.index(border))]


def decode_axes(window: Sequence[int]) -> Axes:
    """The windows again."""
    axes = [window[i : i + _NUMBERS] for i in range(0, len(window), _NUMBERS)]
    return tuple(
        WindowAxis(size, kernel, stride, dilation, bool(causal), BORDERS[border])
        for size, kernel, stride, dilation, causal, border in axes
    )


class Neighborhood(KernelOp):
    """Kernels get (q, k, v, bias, extra_keys, extra_values, key_mask), output, lse, scale and windows."""

    name = "neighborhood"
    function = NAME
    maps = ("q", "k", "v")
    parameters = ("bias?", "extra_keys?", "extra_values?")
    constants = ("key_mask?",)
    options = ("float scale", "SymInt[] window")
    returns_kept = True

    def encode(self, scale: float, axes: Axes) -> tuple:
        """The windows as a flat list."""
        return scale, encode_axes(axes)

    def decode(self, parameters: tuple[Maybe, ...], scale: float, window: Sequence[int]) -> tuple:
        """The windows again."""
        return scale, decode_axes(window)

    def empty_output(self, q: Tensor, k: Tensor, v: Tensor, *_: object) -> Tensor:
        """(B, *space, heads, e), dense."""
        return v.new_empty(v.shape)

    def empty_kept(self, output: Tensor, *_: object) -> Tensor:
        """The log-sum-exp, (B, *space, heads), at least fp32."""
        return output.new_empty(output.shape[:-1], dtype=torch.promote_types(output.dtype, torch.float32))

    def forward_flops(self, *arguments: object) -> int:
        """As `flops.flops`."""
        return self._flops(*arguments)[0]

    def backward_flops(self, *arguments: object) -> int:
        """As `flops.flops`."""
        return self._flops(*arguments)[1]

    def _flops(self, *arguments) -> tuple[int, int]:
        q, _, v, _, extra_keys, *_, axes = arguments
        return flops(q.shape, v.shape[-1], 0 if extra_keys is None else extra_keys.shape[1], axes)


OP = Neighborhood()
