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
    call("forward", q.dtype, scale, [*inputs, *place(out), address(lse)])


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
    dtype = arithmetic(q.dtype)
    sums = [
        None if t is None else t.new_empty(t.shape, dtype=dtype) for t in (bias, extra_keys, extra_values)
    ]
    grad_lse = grad_lse.contiguous()
    maps = [n for t in (grad, *grads) for n in place(t)]
    call(
        "backward",
        q.dtype,
        scale,
        [*inputs, *maps, lse.data_ptr(), grad_lse.data_ptr(), *map(address, sums)],
    )
    return tuple(sums) if wanted else (None, None, None)


def call(kernel: str, dtype: torch.dtype, scale: float, numbers: list[int], *more: float) -> None:
    """Run a kernel by its name."""
    try:
        getattr(_native, kernel)(STORAGE[dtype], torch.get_num_threads(), scale, numbers, *more)
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
        bias = bias.to(arithmetic(q.dtype))
    dense = [None if t is None else t.contiguous() for t in (bias, *extra, key_mask)]
    numbers, tables = geometry(q, v.shape[-1], 0 if extra[0] is None else extra[0].shape[1], axes)
    for t in maps:
        numbers += place(t)
    return [*numbers, *map(address, dense)], (dense, tables)


def geometry(of: Tensor, value_dim: int, extra: int, axes: Sequence[WindowAxis]) -> tuple[list[int], object]:
    """Sizes and windows as the kernels read them, for a map (B, *space, heads, d); what must stay alive."""
    padded = (*(WindowAxis(1, 1),) * (3 - len(axes)), *axes)
    tables = [_attended(axis) for axis in padded]
    numbers = [of.shape[0], *of.shape[-2:], value_dim, extra]
    for axis, of_axis in zip(padded, tables, strict=True):
        numbers += [axis.size, axis.kernel, axis.dilation, *map(address, of_axis)]
    return numbers, tables


def arithmetic(dtype: torch.dtype) -> torch.dtype:
    """What maps of `dtype` are computed in."""
    return torch.promote_types(dtype, torch.float32)


def address(t: Tensor | None) -> int:
    """Where a tensor is, 0 for None."""
    return 0 if t is None else t.data_ptr()


def place(t: Tensor) -> list[int]:
    """Address and strides of a map (B, *space, heads, channels), with three space axes."""
    batch, *space, head, channel = t.stride()
    return [t.data_ptr(), batch, *(0,) * (3 - len(space)), *space, head, channel]


@lru_cache(maxsize=256)
def _attended(axis: WindowAxis) -> tuple[Tensor, Tensor, Tensor]:
    """Of each query: the first position attended, in the map or of a key of zeros; how many; taps before."""
    queries = torch.arange(axis.size, device="cpu")
    starts = axis.starts(queries)
    if axis.border == "zero":
        return starts, axis.counts(queries, starts), torch.zeros_like(queries)
    first, counts = axis.in_map(queries)
    return first, counts, (first - starts) // axis.dilation


_attend = OP.register("cpu", forward, backward, device="cpu", keeps=True)

BACKEND = Backend("cpu", attend, device="cpu", dtypes=tuple(STORAGE), opaque=True, missing=missing)
