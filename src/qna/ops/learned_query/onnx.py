"""Learned-query attention as nodes of ONNX, which exporters put in the place of a recorded kernel.

The reference would do, but a recorder that keeps sizes open asks about each of its hundreds of small steps,
and takes minutes. Here a graph holds four nodes a tap, and maps have their positions last, as runtimes for
convolutions like them.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import torch

from qna._core.errors import require

# of onnxscript, which is not imported before something is exported
Value = Any
_LOWEST = torch.finfo(torch.float32).min
_END = 2**63 - 1


def nodes(
    scores: Value | None, value: Value, bias: Value, weight: Value | None, geometry: list[Any]
) -> Value:
    """The output (B, *space', h, d), for the arguments of the recorded op.

    Args:
        scores: (B, *space, L, h), or None.
        value: (B, *space, h, d), or both in one, (B, *space, d + L, h).
        bias: (*kernel, L, h).
        weight: (*kernel, L, h) or None.
        geometry: `Window.flat`, then the factor; numbers that depend on open sizes are values.
    """
    op: Any = require("onnxscript", extra="export", purpose="writing ONNX").opset18
    *kernel, L, h = bias.shape
    axes, taps = len(kernel), list(product(*map(range, kernel)))
    stride, dilation, before, out, factor = (geometry[i * axes : (i + 1) * axes] for i in range(5))
    subpixels = math.prod(factor)
    span = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    # positions last, behind an axis of taps, queries or channels, and heads
    space = list(range(4, 4 + axes))
    heads_first = [0, axes + 1, axes + 2, *range(1, axes + 1)]
    dtype = value.dtype
    wide = dtype if dtype == dtype.DOUBLE else dtype.FLOAT

    def widened(t: Value) -> Value:
        return t if t.dtype == wide else op.Cast(t, to=wide)

    if scores is None:
        packed, d = op.Transpose(value, perm=heads_first), value.shape[-2] - L
        value, scores = op.Slice(packed, [0], [d], [1]), op.Slice(packed, [d], [_END], [1])
    else:
        scores = op.Transpose(scores, perm=heads_first)
        value = op.Transpose(value, perm=[0, axes + 2, axes + 1, *range(1, axes + 1)])

    size = [op.Shape(value, start=3 + i, end=4 + i) for i in range(axes)]
    # until the last window ends; less than nothing where strides leave positions over
    after = [
        op.Sub(op.Add(op.Mul(o, s), r + 1 - s - b), n)
        for o, s, r, b, n in zip(out, stride, span, before, size, strict=True)
    ]
    pads = op.Concat(op.Constant(value_ints=before), *after, axis=0)

    def padded(m: Value, fill: float) -> Value:
        m = op.Unsqueeze(widened_map(m), [1])
        return op.Pad(m, pads, op.Cast(fill, to=wide), space)

    def widened_map(m: Value) -> Value:
        return m if wide == dtype else op.Cast(m, to=wide)

    def seen(m: Value, tap: tuple[int, ...]) -> Value:
        starts = [t * d for t, d in zip(tap, dilation, strict=True)]
        ends = [begin - r or _END for begin, r in zip(starts, span, strict=True)]
        return op.Slice(m, starts, ends, space, stride)

    def table(t: Value) -> Value:
        return op.Reshape(widened(t), [1, len(taps), L, h] + [1] * axes)

    scores, value = padded(scores, float("-inf")), padded(value, 0.0)
    logits = op.Add(op.Concat(*[seen(scores, tap) for tap in taps], axis=1), table(bias))
    # of a window without any position in the map, all exponentials are 0
    top = op.Max(op.ReduceMax(logits, [1]), _LOWEST)
    exponentials = op.Exp(op.Sub(logits, top))
    total = op.ReduceSum(exponentials, [1])
    shares = op.Div(exponentials, op.Where(op.Equal(total, 0.0), 1.0, total))
    if weight is not None:
        shares = op.Mul(shares, table(weight))

    def attend(shares: Value) -> Value:
        """(B, 1, d, h, *windows) of one output of every window, from the shares of its queries."""
        shares = op.ReduceSum(shares, [2])
        each = op.Split(shares, axis=1, num_outputs=len(taps)) if len(taps) > 1 else [shares]
        # one after the other: a sum of all would hold as many maps as there are taps
        attended = op.Mul(seen(value, taps[0]), each[0])
        for tap, share in zip(taps[1:], each[1:], strict=True):
            attended = op.Add(attended, op.Mul(seen(value, tap), share))
        return attended

    if subpixels == 1:
        attended = op.Transpose(op.Squeeze(attend(shares), [1]), perm=[0, *range(3, 3 + axes), 2, 1])
    else:
        groups = op.Split(shares, axis=2, num_outputs=subpixels)
        attended = _interleave(op, op.Concat(*map(attend, groups), axis=1), factor)
    return attended if wide == dtype else op.Cast(attended, to=dtype)


def _interleave(op: Any, grouped: Value, factor: list[int]) -> Value:
    """(B, G, d, h, *windows) -> (B, *space', h, d): the G = prod(factor) outputs of a window side by side."""
    axes, along = len(factor), op.Constant(value_ints=factor)
    rest = op.Shape(grouped, start=2)
    apart = op.Reshape(grouped, op.Concat(op.Shape(grouped, end=1), along, rest, axis=0))
    # B, *factor, d, h, *windows: of each axis the window's place, then the sub-pixel's in it
    places = [axis for a in range(axes) for axis in (axes + 3 + a, 1 + a)]
    apart = op.Transpose(apart, perm=[0, *places, axes + 2, axes + 1])
    fine = op.Mul(op.Shape(grouped, start=4), along)
    channels = [op.Shape(grouped, start=i, end=i + 1) for i in (3, 2)]
    return op.Reshape(apart, op.Concat(op.Shape(grouped, end=1), fine, *channels, axis=0))
