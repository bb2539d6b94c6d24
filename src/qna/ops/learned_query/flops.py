"""Arithmetic of the op, by shapes: two FLOPs per multiply-add."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qna.ops._shared.window import Window
from qna.ops.learned_query.cases import Case

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


def flops_of(case: Case) -> tuple[int, int]:
    """FLOPs of a forward and of a backward of a case."""
    window = Window.over(
        case.space, case.kernel, **{"stride": 1, "padding": "same", "dilation": 1, **case.window}
    )
    value = (case.batch, *case.space, case.heads, case.head_dim)
    bias = (*case.kernel, case.queries, case.heads)
    return forward_flops(value, bias, window.out), backward_flops(value, bias, window.out)
