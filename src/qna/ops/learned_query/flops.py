"""Arithmetic of the op, by shapes: two FLOPs per multiply-add."""

from __future__ import annotations

import math
from collections.abc import Sequence

Shape = Sequence[int]


def forward_flops(value: Shape, bias: Shape, out: Shape) -> int:
    """A denominator and a share per query and head, the value once per tap.

    Takes the shapes (B, *space, h, d) and (*kernel, L, h), and the number of windows per axis.
    """
    *kernel, queries, heads = bias
    return 2 * value[0] * math.prod(out) * math.prod(kernel) * heads * (2 * queries + value[-1])


def backward_flops(value: Shape, bias: Shape, out: Shape) -> int:
    """The shares again, `grad . value` and the value's gradient per tap, three sums per query and head."""
    *kernel, queries, heads = bias
    return 2 * value[0] * math.prod(out) * math.prod(kernel) * heads * (5 * queries + 2 * value[-1])
