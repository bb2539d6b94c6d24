"""A call as the kernels take it: `Call` of kernels/call.cuh, field by field."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence

from torch import Tensor

from qna.ops._shared.window import Window

# of these bytes is the longest word that a thread reads at once
WORD = 16
# those of a call's tensors that are maps
MAPS = ("scores", "value", "windows", "of_scores", "of_value")


class KernelMap(ctypes.Structure):
    """A map whose rows hold (numbers, heads), the heads next to each other; strides in elements."""

    _fields_ = [(name, ctypes.c_int64) for name in ("at", "item", "row", "column")]


class KernelCall(ctypes.Structure):
    """One call of any of the kernels; what a kernel does not use stays 0."""

    _fields_ = [
        *((name, KernelMap) for name in MAPS),
        *(
            (name, ctypes.c_int64)
            for name in ("bias", "weight", "lse", "inner", "partials", "of_bias", "of_weight")
        ),
        *(
            (name, ctypes.c_int32)
            for name in (
                *("batch", "heads", "height", "width", "rows", "columns"),
                *("above", "left", "programs", "unused"),
            )
        ),
    ]


def call(window: Window, scores: Tensor, **tensors: Tensor | None) -> KernelCall:
    """The call for maps (B, y, x, ...) and tables by the names of its fields."""
    batch, height, width, _, heads = scores.shape
    made = KernelCall(batch=batch, heads=heads, height=height, width=width, scores=_map(scores))
    made.rows, made.columns = window.out
    made.above, made.left = window.before
    for name, t in tensors.items():
        if t is not None:
            setattr(made, name, _map(t) if name in MAPS else t.data_ptr())
    return made


def _map(t: Tensor) -> KernelMap:
    return KernelMap(t.data_ptr(), *t.stride()[:3])


def vector(heads: int, most: int, size: int, maps: Sequence[Tensor]) -> int:
    """How many neighbouring heads, of a block's `most`, are read at once from all of these maps.

    `size` is that of a number, in bytes.
    """
    units = [heads, most, WORD // size]
    for t in maps:
        units.append(t.data_ptr() // size)
        # an axis of one position has no stride: what torch reports for it must not cost alignment
        units += [step for n, step in zip(t.shape[:3], t.stride()[:3], strict=True) if n > 1]
    return math.gcd(*units)
