"""The halves of the op on the CPU: C++ sweeps between the numbers of all taps, queries and keys.

Each half is a pair of maps that make a third. Its gradients are the same sweeps with other maps in their
places.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from qna._core.backends import Backend
from qna.ops._shared.compiled import STORAGE
from qna.ops._shared.kernel_op import KernelOp
from qna.ops.neighborhood.cpu import address, arithmetic, call, geometry, missing, place
from qna.ops.neighborhood.flops import half_flops
from qna.ops.neighborhood.geometry import WindowAxis
from qna.ops.neighborhood.library import decode_axes, encode_axes

Maybe = Tensor | None
Axes = tuple[WindowAxis, ...]


class _Half(KernelOp):
    """A half: its kernels get maps, bias and mask, output, None, scale, windows."""

    options = ("float scale", "SymInt[] window")

    def encode(self, scale: float, axes: Axes) -> tuple:
        """The windows as a flat list."""
        return scale, encode_axes(axes)

    def decode(self, parameters: tuple[Maybe, ...], scale: float, window: Sequence[int]) -> tuple:
        """The windows again."""
        return scale, decode_axes(window)

    def forward_flops(self, *arguments: Any) -> int:
        """As `half_flops`."""
        return half_flops(arguments[1].shape, arguments[-1])

    def backward_flops(self, *arguments: Any) -> int:
        """Of the gradients of both maps, each a half of its own."""
        return 2 * half_flops(arguments[1].shape, arguments[-1])


class _Scores(_Half):
    name = "neighborhood_qk"
    function = "qna.ops.neighborhood_qk"
    maps = ("q", "k")
    parameters = ("bias?",)
    constants = ("key_mask?",)

    def empty_output(self, q: Tensor, *arguments: Any) -> Tensor:
        """(B, *space, heads, taps), dense."""
        return q.new_empty((*q.shape[:-1], math.prod([axis.kernel for axis in arguments[-1]])))


class _Aggregate(_Half):
    name = "neighborhood_av"
    function = "qna.ops.neighborhood_av"
    maps = ("weights", "v")

    def empty_output(self, weights: Tensor, v: Tensor, *_: Any) -> Tensor:
        """(B, *space, heads, e), dense."""
        return v.new_empty(v.shape)


def _sweep(
    kernel: str,
    taps: Tensor,
    at_query: Tensor,
    at_key: Tensor,
    axes: Axes,
    *,
    scale: float = 1.0,
    bias: Maybe = None,
    grad_bias: Maybe = None,
    key_mask: Maybe = None,
    unseen: float = 0.0,
) -> None:
    """Fill what `kernel` makes of the others: "products" taps, "sums" at_query, "spread" at_key."""
    if bias is not None:
        bias = bias.to(arithmetic(taps.dtype)).contiguous()
    if key_mask is not None:
        key_mask = key_mask.contiguous()
    numbers, _alive = geometry(at_query, at_query.shape[-1], 0, axes)
    for t in (taps, at_query, at_key):
        numbers += place(t)
    call(kernel, taps.dtype, scale, [*numbers, *map(address, (bias, grad_bias, key_mask))], unseen)


def _scores(q: Tensor, k: Tensor, *given: Any) -> None:
    bias, key_mask, out, _, scale, axes = given
    options = {"bias": bias, "key_mask": key_mask, "unseen": -math.inf}
    _sweep("products", out, q, k, axes, scale=scale, **options)


def _scores_backward(grad: Tensor, q: Tensor, k: Tensor, *given: Any) -> tuple[Maybe]:
    bias, key_mask, _, (grad_q, grad_k), scale, axes, wanted = given
    of_bias = None
    if bias is not None and wanted:
        of_bias = bias.new_empty(bias.shape, dtype=arithmetic(q.dtype))
    options = {"scale": scale, "key_mask": key_mask}
    _sweep("sums", grad, grad_q, k, axes, bias=bias, grad_bias=of_bias, **options)
    _sweep("spread", grad, q, grad_k, axes, **options)
    return (of_bias,)


def _aggregate(weights: Tensor, v: Tensor, *given: Any) -> None:
    out, _, scale, axes = given
    _sweep("sums", weights, out, v, axes, scale=scale)


def _aggregate_backward(grad: Tensor, weights: Tensor, v: Tensor, *given: Any) -> tuple[()]:
    _, (grad_weights, grad_v), scale, axes, _ = given
    _sweep("products", grad_weights, grad, v, axes, scale=scale)
    _sweep("spread", weights, grad, grad_v, axes, scale=scale)
    return ()


def _backend(op: _Half, *kernels: Any) -> Backend:
    run = op.register("cpu", *kernels, device="cpu", keeps=False)
    return Backend("cpu", run, device="cpu", dtypes=tuple(STORAGE), opaque=True, missing=missing)


SCORES = _backend(_Scores(), _scores, _scores_backward)
AGGREGATE = _backend(_Aggregate(), _aggregate, _aggregate_backward)
