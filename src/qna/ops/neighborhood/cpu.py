"""Neighbourhood attention on the CPU: the fused C++ kernels as `torch.library` ops, with their limits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from qna._core.backends import Backend
from qna.ops._shared.compiled import STORAGE, load
from qna.ops.neighborhood.geometry import WindowAxis
from qna.ops.neighborhood.inputs import NAME
from qna.ops.neighborhood.library import OP

_native, missing = load(__package__)


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    extra_keys: Tensor | None,
    extra_values: Tensor | None,
    key_mask: Tensor | None,
    out: Tensor,
    lse: Tensor | None,
    scale: float,
    axes: Sequence[WindowAxis],
) -> None:
    """Fill `out`, and `lse` where there is one."""
    inputs, _alive = _inputs((q, k, v), bias, (extra_keys, extra_values), key_mask, axes)
    _call("forward", q.dtype, scale, [*inputs, *_place(out), _address(lse)])


def backward(
    grad: Tensor,
    grad_lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *given: Any,
) -> tuple[Tensor | None, ...]:
    """Fill the gradients of q, k and v; return those of bias, extra keys and extra values."""
    bias, extra_keys, extra_values, key_mask, lse, grads, scale, axes, wanted = given
    inputs, _alive = _inputs((q, k, v), bias, (extra_keys, extra_values), key_mask, axes)
    arithmetic = _arithmetic(q.dtype)
    sums = [
        None if t is None else t.new_empty(t.shape, dtype=arithmetic)
        for t in (bias, extra_keys, extra_values)
    ]
    grad_lse = grad_lse.contiguous()
    maps = [n for t in (grad, *grads) for n in _place(t)]
    _call(
        "backward",
        q.dtype,
        scale,
        [*inputs, *maps, lse.data_ptr(), grad_lse.data_ptr(), *map(_address, sums)],
    )
    return tuple(sums) if wanted else (None, None, None)


def _call(kernel: str, dtype: torch.dtype, scale: float, numbers: list[int]) -> None:
    try:
        getattr(_native, kernel)(STORAGE[dtype], torch.get_num_threads(), scale, numbers)
    except MemoryError:
        raise MemoryError(
            f"the CPU kernels of {NAME} found no memory for their tiles; use smaller maps or windows, or "
            "fewer threads (torch.set_num_threads)"
        ) from None


def attend(*arguments: Any, return_lse: bool) -> Any:
    """As `reference.attend`."""
    return _attend(*arguments, return_kept=return_lse)


def _inputs(
    maps: Sequence[Tensor],
    bias: Tensor | None,
    extra: Sequence[Tensor | None],
    key_mask: Tensor | None,
    axes: Sequence[WindowAxis],
) -> tuple[list[int], object]:
    """As the kernels read them, and what must stay alive meanwhile."""
    q, _, v = maps
    if bias is not None:
        bias = bias.to(_arithmetic(q.dtype))
    dense = [None if t is None else t.contiguous() for t in (bias, *extra, key_mask)]
    padded = (*(WindowAxis(1, 1),) * (3 - len(axes)), *axes)
    tables = [_attended(axis) for axis in padded]
    numbers = [q.shape[0], *q.shape[-2:], v.shape[-1], 0 if extra[0] is None else extra[0].shape[1]]
    for axis, of_axis in zip(padded, tables, strict=True):
        numbers += [axis.size, axis.kernel, axis.dilation, *map(_address, of_axis)]
    for t in maps:
        numbers += _place(t)
    return [*numbers, *map(_address, dense)], (dense, tables)


def _arithmetic(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _address(t: Tensor | None) -> int:
    return 0 if t is None else t.data_ptr()


def _place(t: Tensor) -> list[int]:
    """Address and strides of a map (B, *space, heads, channels), with three space axes."""
    batch, *space, head, channel = t.stride()
    return [t.data_ptr(), batch, *(0,) * (3 - len(space)), *space, head, channel]


@lru_cache(maxsize=256)
def _attended(axis: WindowAxis) -> tuple[Tensor, Tensor]:
    """First position that each query attends, in the map or as a key of zeros, and how many."""
    queries = torch.arange(axis.size, device="cpu")
    if axis.border == "zero":
        starts = axis.starts(queries)
        return starts, axis.counts(queries, starts)
    return axis.in_map(queries)


_attend = OP.register("cpu", forward, backward, device="cpu", keeps=True)

BACKEND = Backend("cpu", attend, device="cpu", dtypes=tuple(STORAGE), opaque=True, missing=missing)
