"""Sizes in a graph that is recorded for maps of any size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def is_open(size: object) -> bool:
    """Whether a graph is recorded in which this size may be another: recorders then give no integer."""
    return type(size) is not int


def at_most(most: int, size: Any) -> Any:
    """``min(most, size)`` of a size that may be open, as a recorder follows it."""
    # what torch.jit.trace calls a size is a tensor
    return size.clamp(max=most) if isinstance(size, Tensor) else torch.sym_min(most, size)


def part_of(x: Tensor, axis: int, start: int, length: int) -> Tensor:
    """``x.narrow(axis, start, length)``, for graphs of open sizes by index.

    Whether a slice leaves something out shows in its strides, which a recorder would keep to.
    """
    if any(map(is_open, (*x.shape, start, length))):
        return x.index_select(axis, torch.arange(length, device=x.device) + start)
    return x.narrow(axis, start, length)
