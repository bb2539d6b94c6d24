"""The launches of the kernels: geometry, tables and tiles of a call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qna.ops._shared.triton.arguments import CALLS, ceil, in_units, power, three_axes, unspecialised
from qna.ops._shared.triton.launch import Launch
from qna.ops.neighborhood.geometry import WindowAxis
from qna.ops.neighborhood.triton.boxes import LEAST, box, channels, sweeps, tile

Maybe = Tensor | None
Axes = tuple[WindowAxis, ...]

# parts of a sum over the map, at most, and numbers of them all
RUNS = 64
SUMS = 2**22
# numbers of queries and values that a program of `bias_gradients` takes at a time
NUMBERS = 2048


class Given(NamedTuple):
    """The op's tensors as kernels read them: channels dense, tables and masks dense.

    Attributes:
        q: (B, *space, heads, d).
        k: the same.
        v: (B, *space, heads, e).
        bias: in fp32, or None.
        extra: keys and values, (B, M, heads, channels), or two times None.
        mask: bytes, or None.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    bias: Maybe
    extra: tuple[Maybe, Maybe]
    mask: Maybe

    @classmethod
    def of(
        cls, q: Tensor, k: Tensor, v: Tensor, bias: Maybe, keys: Maybe, values: Maybe, mask: Maybe
    ) -> Given:
        """Copies of what is not dense; no extra keys are none."""
        if keys is not None and not keys.shape[1]:
            keys = values = None
        return cls(
            dense(q),
            dense(k),
            dense(v),
            None if bias is None else bias.float().contiguous(),
            (None, None) if keys is None or values is None else (keys.contiguous(), values.contiguous()),
            None if mask is None else mask.contiguous().view(torch.uint8),
        )


def is_dense(t: Tensor) -> bool:
    """Whether the channels of a map lie one after the other, as the kernels read and write them."""
    return t.stride(-1) == 1 or t.shape[-1] == 1


def dense(t: Tensor) -> Tensor:
    """The map, or a copy that is."""
    return t if is_dense(t) else t.contiguous()


def forward(given: Given, out: Tensor, lse: Maybe, scale: float, axes: Axes) -> list[Launch]:
    """The launch that fills `out`, and `lse` where it is wanted."""
    call = _BoxCall(given, axes, (given.q, given.k, given.v, out))
    maps = (given.q, given.k, given.v)
    arguments = (maps, given.extra, (given.bias, given.mask, call.ranges), (out, lse), scale)
    return [call.by_products("attend", arguments)]


def backward(
    grad: Tensor,
    grad_lse: Tensor,
    given: Given,
    lse: Tensor,
    grads: Sequence[Tensor],
    sums: Sequence[Maybe],
    scale: float,
    axes: Axes,
) -> list[Launch]:
    """The launches that fill the gradients of q, k and v, and parts of those of bias and extra keys.

    `sums` are what `partials` made, None where not wanted.
    """
    grad = dense(grad)
    maps = (given.q, given.k, given.v, grad)
    inner = torch.empty_like(lse)
    of_queries, of_keys = _BoxCall(given, axes, (*maps, grads[0])), _BoxCall(given, axes, (*maps, *grads[1:]))
    tables = (given.bias, given.mask, of_queries.ranges)
    logs = (lse, grad_lse.contiguous())
    arguments = (maps, given.extra, tables, logs, (grads[0], inner), scale)
    launches = [
        *(of_queries.by_products("query_gradients", arguments, SWEEPS=each) for each in of_queries.sweeps),
        of_keys.by_products("key_gradients", (maps, tables, (lse, inner), tuple(grads[1:]), scale)),
    ]
    of_bias, *of_extra = sums
    if of_bias is not None:
        call = _BoxCall(given, axes, maps)
        launches.append(call.bias_gradients((maps, tables, (lse, inner), of_bias, scale)))
    if of_extra[0] is not None:
        call = _BoxCall(given, axes, (given.q, grad))
        arguments = ((given.q, grad), given.extra, (lse, inner), tuple(of_extra), scale)
        launches.append(call.extra_gradients(arguments))
    return launches


def partials(given: Given, axes: Axes) -> tuple[Maybe, Maybe, Maybe]:
    """Room for parts of the sums over the map: (parts, ...) of bias, extra keys and extra values in fp32."""
    positions = math.prod(axis.size for axis in axes)
    items = given.q.shape[0]

    def parts(t: Tensor, blocks: int) -> Tensor:
        runs = max(1, min(RUNS, SUMS // t.numel(), blocks))
        # runs of as many blocks, none of them empty
        return t.new_empty(ceil(blocks, ceil(blocks, runs)), *t.shape, dtype=torch.float32)

    of_bias = None
    if given.bias is not None:
        of_bias = parts(given.bias, items * ceil(positions, _numbers(given)))
    keys, values = given.extra
    if keys is None or values is None:
        return of_bias, None, None
    blocks = ceil(positions, _chunk_of_extra(given))
    of_keys = parts(keys if keys.shape[-1] > values.shape[-1] else values, blocks)
    both = [of_keys.new_empty(len(of_keys), *t.shape) for t in (keys, values)]
    return of_bias, both[0], both[1]


class _BoxCall:
    """Sizes, strides and windows of one call, in the form that the kernels take."""

    def __init__(self, given: Given, axes: Axes, maps: Sequence[Tensor]):
        self.given, self.axes = given, axes
        self.device = given.q.device
        self.bits = given.q.element_size() * 8
        self.ranges = ranges(axes, self.device)
        extra = given.extra[0]
        self.sizes, self.strides, self.window, self.channels = _geometry(
            axes,
            given.q.shape,
            given.v.shape[-1],
            0 if extra is None else extra.shape[1],
            tuple((m.shape, m.stride()) for m in maps),
        )

    @property
    def sweeps(self) -> tuple[int, ...]:
        """Those of each launch of `query_gradients`."""
        return sweeps(self.bits, max(map(channels, self.channels[:2])))

    def by_products(self, kernel: str, arguments: tuple, **constants: Any) -> Launch:
        """A launch with a program per box of positions, head and item."""
        d, e = map(channels, self.channels[:2])
        chosen = tile(kernel, self.bits, max(d, e))
        sides = box(self.axes, chosen.owned, chosen.chunk)
        programs = self.given.q.shape[0] * self.given.q.shape[-2]
        for axis, side in zip(self.axes, sides[3 - len(self.axes) :], strict=True):
            groups = min(axis.dilation, axis.size)
            programs *= groups * ceil(ceil(axis.size, groups), side)
        constants["BLOCK"] = (*sides, chosen.chunk, d, e)
        return self._launch(kernel, programs, arguments, constants, chosen.warps, chosen.stages)

    def bias_gradients(self, arguments: tuple) -> Launch:
        """A launch with a program per entry of the bias and part of the map."""
        d, e = map(channels, self.channels[:2])
        partials = arguments[-2]
        constants = {"BLOCK": (_numbers(self.given), d, e)}
        counts = unspecialised((self.given.q.shape[0], len(partials)))
        programs = partials.numel()
        return self._launch("bias_gradients", programs, (*arguments, *counts), constants, 4, 1)

    def extra_gradients(self, arguments: tuple) -> Launch:
        """A launch with a program per chunk of extra keys, head, item and part of the map."""
        d, e = map(channels, self.channels[:2])
        chosen = tile("extra_gradients", self.bits, max(d, e))
        of_keys, _ = arguments[-2]
        runs, items, extra, heads, _ = of_keys.shape
        constants = {"BLOCK": (chosen.owned, chosen.chunk, d, e)}
        programs = runs * items * heads * ceil(extra, chosen.owned)
        counts = unspecialised((items, runs))
        return self._launch("extra_gradients", programs, (*arguments, *counts), constants, chosen.warps, 1)

    def _launch(
        self, kernel: str, programs: int, arguments: tuple, constants: dict, warps: int, stages: int
    ) -> Launch:
        arguments = (*arguments, self.strides, self.sizes)
        constants = {"WINDOW": self.window, "CHANNELS": self.channels, **constants}
        return Launch(
            kernel, programs, arguments, constants, {"num_warps": warps, "num_stages": stages}, self.device
        )


def _numbers(given: Given) -> int:
    return max(LEAST, NUMBERS // power(channels(given.q.shape[-1]) + channels(given.v.shape[-1])))


def _chunk_of_extra(given: Given) -> int:
    width = max(channels(t.shape[-1]) for t in (given.q, given.v))
    return tile("extra_gradients", given.q.element_size() * 8, width).chunk


@lru_cache(CALLS)
def _geometry(
    axes: Axes,
    queries: tuple[int, ...],
    value_dim: int,
    extra: int,
    maps: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...],
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...], tuple[int, ...], tuple[int, int, int]]:
    """Sizes, strides, windows and channels, as `primitives` tells."""
    unit, rows = in_units([(shape[:-1], stride[:-1]) for shape, stride in maps])
    strides = tuple(unspecialised((row[0], *three_axes(row[1:-1], 0), row[-1])) for row in rows)
    sizes = unspecialised((*three_axes([axis.size for axis in axes], 1), queries[-2], extra))
    kernel = three_axes([axis.kernel for axis in axes], 1)
    # a dilation beyond the map is one of its size: each position a group of its own
    dilation = three_axes([min(axis.dilation, axis.size) for axis in axes], 1)
    return sizes, strides, (len(axes), *kernel, *dilation), (queries[-1], value_dim, unit)


@lru_cache(256)
def ranges(axes: Axes, device: torch.device) -> Tensor:
    """For each of three axes what queries see, from which place in their group to which, and what sees keys.

    int32, tables of the axis's size: first and last + 1 of the keys of each query, then those of the queries
    of each key. Both grow with the place.
    """
    padded = (*(WindowAxis(1, 1),) * (3 - len(axes)), *axes)
    return torch.cat([table for axis in padded for table in _tables(axis)]).int().to(device)


def _tables(axis: WindowAxis) -> tuple[Tensor, ...]:
    at = torch.arange(axis.size, device="cpu")
    residue, place = at % axis.dilation, at // axis.dilation
    if axis.border == "zero":
        starts = axis.starts(at)
        counts = axis.counts(at, starts)
    else:
        starts, counts = axis.in_map(at)
    first = (starts - residue) // axis.dilation
    last = first + counts
    begin, end = torch.empty_like(at), torch.empty_like(at)
    for group in range(min(axis.dilation, axis.size)):
        members = slice(group, None, axis.dilation)
        first_of, last_of, key = (t[members].contiguous() for t in (first, last, place))
        # queries from the first whose window ends behind the key to the last whose begins before it
        begin[members] = torch.searchsorted(last_of, key, right=True)
        end[members] = torch.searchsorted(first_of, key, right=True)
    return first, last, begin, torch.maximum(begin, end)
