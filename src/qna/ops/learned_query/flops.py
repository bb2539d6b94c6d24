"""Arithmetic of the op, registered once for every kernel so that `FlopCounterMode` sees through them."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

Shape = Sequence[int]


def forward_flops(value: Shape, bias: Shape, out: Shape) -> int:
    """Two per multiply-add: a denominator and a share per query and head, the value once per tap.

    Takes the shapes (B, *space, h, d) and (*kernel, L, h), and the number of windows per axis.
    """
    *kernel, queries, heads = bias
    return 2 * value[0] * math.prod(out) * math.prod(kernel) * heads * (2 * queries + value[-1])


def backward_flops(value: Shape, bias: Shape, out: Shape) -> int:
    """The shares again, `grad . value` and the value's gradient per tap, three sums per query and head."""
    *kernel, queries, heads = bias
    return 2 * value[0] * math.prod(out) * math.prod(kernel) * heads * (5 * queries + 2 * value[-1])


def register_flop_formulas() -> None:
    """Tell `torch.utils.flop_counter.FlopCounterMode` what the kernels cost.

    Done on import where the counter's module is loaded already; otherwise call it before making a counter.
    (Importing that module here would load triton for everyone who has it.)
    """
    from torch.utils.flop_counter import flop_registry, register_flop_formula

    for forward, backward in _kernels:
        if forward not in flop_registry:
            register_flop_formula(forward)(_forward)
        if backward not in flop_registry:
            register_flop_formula(backward)(_backward)


def add_kernel(forward, backward) -> None:
    """Name a kernel's pair of ops (scores, value, bias, weight, window)."""
    _kernels.append((forward, backward))
    if "torch.utils.flop_counter" in sys.modules:
        register_flop_formulas()


_kernels: list[tuple] = []


def _forward(scores, value, bias, *rest, out_shape=None, **kwargs) -> int:
    return forward_flops(_value(scores, value, bias), bias, _out(bias, rest[-1]))


def _backward(grad, scores, value, bias, *rest, out_shape=None, **kwargs) -> int:
    return backward_flops(_value(scores, value, bias), bias, _out(bias, rest[-1]))


def _out(bias: Shape, flat: Shape) -> Shape:
    """Windows per axis, the last of what `Window.flat` holds."""
    return flat[-(len(bias) - 2) :]


def _value(scores: Shape | None, value: Shape, bias: Shape) -> Shape:
    """The shape (B, *space, h, d) of the value, also of one that holds the scores: (B, *space, d + L, h)."""
    return value if scores is not None else (*value[:-2], value[-1], value[-2] - bias[-2])
