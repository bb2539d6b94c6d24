"""Learned-query attention on the CPU: the fused C++ kernels as `torch.library` ops, with their limits."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from qna._core.backends import Backend
from qna.ops._shared.compiled import STORAGE, load
from qna.ops._shared.window import Window
from qna.ops.learned_query import onnx
from qna.ops.learned_query.library import OP

_native, missing = load(__package__)


def instruction_set() -> str | None:
    """Instruction set that the kernels use, None where there are no kernels."""
    return _native.in_use() if _native is not None else None


def forward(
    scores: Tensor,
    value: Tensor,
    bias: Tensor,
    weight: Tensor | None,
    out: Tensor,
    lse: Tensor | None,
    window: Window,
    factor: tuple[int, ...],
) -> None:
    """Fill `out`."""
    scores, (bias, weight) = _dense(scores), _tables(bias, weight, value.dtype)
    _call(
        _native.forward,
        STORAGE[value.dtype],
        torch.get_num_threads(),
        [
            *_geometry(scores, value, window, factor),
            *_map(scores, 3),
            *_map(value, 2),
            *_map(out, 2),
            bias.data_ptr(),
            0 if weight is None else weight.data_ptr(),
        ],
    )


def backward(
    grad: Tensor,
    scores: Tensor,
    value: Tensor,
    bias: Tensor,
    weight: Tensor | None,
    lse: Tensor | None,
    grads: tuple[Tensor, Tensor],
    window: Window,
    factor: tuple[int, ...],
    parameters: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Fill the gradients of scores and value; return those of bias and weight."""
    scores, (bias, weight) = _dense(scores), _tables(bias, weight, value.dtype)
    grad_scores, grad_value = grads
    grad_bias = torch.empty_like(bias)
    grad_weight = None if weight is None else torch.empty_like(weight)
    _call(
        _native.backward,
        STORAGE[value.dtype],
        torch.get_num_threads(),
        [
            *_geometry(scores, value, window, factor),
            *_map(scores, 3),
            *_map(grad_scores, 3),
            *_map(value, 2),
            *_map(grad, 2),
            *_map(grad_value, 2),
            bias.data_ptr(),
            0 if weight is None else weight.data_ptr(),
            grad_bias.data_ptr(),
            0 if grad_weight is None else grad_weight.data_ptr(),
        ],
    )
    return (grad_bias, grad_weight) if parameters else (None, None)


def _call(kernel: Any, storage: int, threads: int, numbers: list[int]) -> None:
    try:
        kernel(storage, threads, numbers)
    except MemoryError:
        raise MemoryError(
            "the CPU kernels of qna.ops.learned_query_attention found no memory for their tiles; "
            "use smaller maps, strides or dilations, or fewer threads (torch.set_num_threads)"
        ) from None


def _dense(scores: Tensor) -> Tensor:
    """`scores` with its last two axes next to each other in memory; a copy only where they are not."""
    queries, heads = scores.shape[-2:]
    if (heads == 1 or scores.stride(-1) == 1) and (queries == 1 or scores.stride(-2) == heads):
        return scores
    return scores.contiguous()


def _tables(bias: Tensor, weight: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Bias and weight as the kernels read them: dense, in the precision of their arithmetic."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    # asked first, because `to` takes a microsecond to do nothing
    if bias.dtype != wide:
        bias = bias.to(wide)
    if weight is not None and weight.dtype != wide:
        weight = weight.to(wide)
    return bias.contiguous(), None if weight is None else weight.contiguous()


def _geometry(scores: Tensor, value: Tensor, window: Window, factor: tuple[int, ...]) -> list[int]:
    batch, *space, queries, heads = scores.shape
    stride, dilation = window.stride, window.dilation
    if max(stride) > 1:  # between windows; a tile has room for it, also where there is but one window
        stride = [s if o > 1 else 1 for s, o in zip(stride, window.out, strict=True)]
    if max(dilation) > 1:
        dilation = [d if k > 1 else 1 for d, k in zip(dilation, window.kernel, strict=True)]
    lead = 3 - len(space)
    ones, zeros = (1,) * lead, (0,) * lead
    return [
        batch,
        queries // math.prod(factor),
        heads,
        value.shape[-1],
        *(*ones, *space),
        *(*ones, *window.out),
        *(*ones, *window.kernel),
        *(*ones, *stride),
        *(*ones, *dilation),
        *(*zeros, *window.before),
        *(*ones, *factor),
    ]


def _map(t: Tensor, skip: int) -> list[int]:
    """Address and strides of a map: batch, three space axes, and for values the head and the channel."""
    batch, *space, head, channel = t.stride()
    inner = () if skip == 3 else (head, channel)
    return [t.data_ptr(), batch, *(0,) * (3 - len(space)), *space, *inner]


BACKEND = Backend(
    "cpu",
    OP.register("cpu", forward, backward, device="cpu", keeps=False),
    device="cpu",
    dtypes=tuple(STORAGE),
    opaque=True,
    missing=missing,
    onnx={"learned_query_cpu": onnx.nodes},
)
