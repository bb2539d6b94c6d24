"""Arithmetic of the op, by shapes: two FLOPs per multiply-add."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qna._core.checks import per_axis
from qna.ops._shared.window import Window
from qna.ops.learned_query.cases import Case

Shape = Sequence[int]


def forward_flops(value: Shape, bias: Shape, window: Window, factor: Shape) -> int:
    """A denominator and a share per query and head, the value once per tap and output of a window.

    Takes the shapes (B, *space, h, d) and (*kernel, L, h).
    """
    queries, heads = bias[-2:]
    return _taps(value, bias, window) * heads * (2 * queries + math.prod(factor) * value[-1])


def backward_flops(value: Shape, bias: Shape, window: Window, factor: Shape) -> int:
    """The shares again, `grad . value` and the value's gradient per tap, three sums per query and head."""
    queries, heads = bias[-2:]
    return _taps(value, bias, window) * heads * (5 * queries + 2 * math.prod(factor) * value[-1])


def flops_of(case: Case) -> tuple[int, int]:
    """FLOPs of a forward and of a backward of a case."""
    arguments = {"stride": 1, "padding": "same", "dilation": 1, "factor": 1, **case.window}
    factor = per_axis("factor", arguments.pop("factor"), len(case.space), minimum=1)
    window = Window.over(case.space, case.kernel, **arguments)
    value = (case.batch, *case.space, case.heads, case.head_dim)
    bias = (*case.kernel, case.queries, case.heads)
    return forward_flops(value, bias, window, factor), backward_flops(value, bias, window, factor)


def _taps(value: Shape, bias: Shape, window: Window) -> int:
    """FLOPs of one multiply-add for each tap of each window of the batch."""
    return 2 * value[0] * math.prod(window.out) * math.prod(bias[:-2])
