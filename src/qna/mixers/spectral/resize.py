"""Filters of one size of map at another, resized in the frequency plane."""

from __future__ import annotations

import torch
from torch import Tensor


def resize_filter(weight: Tensor, width: int, height_to: int, width_to: int) -> Tensor:
    """Half a plane of complex filters (H, width // 2 + 1, C) -> (H', W' // 2 + 1, C), for real maps.

    A filter is taken as a function of cycles per position, periodic, and interpolated linearly between the
    frequencies that it was learned at; so one that is the same at all frequencies stays what it is. What
    `irfft2` would not read of it is taken out before, as it must not reach the frequencies between.
    """
    weight = _as_read(weight, width)
    rows = _periodic_matrix(height_to, weight.shape[0], weight.real)
    columns = _half_matrix(width_to, width, weight.shape[1], weight.real)

    def resized(part: Tensor) -> Tensor:
        return torch.einsum("yh,xw,hwc->yxc", rows, columns, part)

    return torch.complex(resized(weight.real), resized(weight.imag))


def _as_read(weight: Tensor, width: int) -> Tensor:
    """Hermitian where a column is its own mirror; for odd widths with one column beyond the half plane."""
    weight, last = weight.clone(), weight.shape[1] - 1
    for column in (0,) if width % 2 else {0, last}:
        weight[:, column] = (weight[:, column] + _mirrored(weight[:, column])) / 2
    if width % 2:
        weight = torch.cat([weight, _mirrored(weight[:, last])[:, None]], 1)
    return weight


def _mirrored(column: Tensor) -> Tensor:
    """A column (H, C) of a real map's plane, as the column of the opposite frequency has it."""
    return column.flip(0).roll(1, 0).conj()


def _periodic_matrix(new: int, old: int, like: Tensor) -> Tensor:
    """The matrix (new, old) of linear interpolation around the circle of frequencies; rows sum to 1."""
    at = torch.arange(new, device=like.device, dtype=like.dtype) * (old / like.new_ones(new).sum())
    distance = (at[:, None] - torch.arange(old, device=like.device, dtype=like.dtype)).abs()
    weights = (1 - torch.minimum(distance, old - distance)).clamp_min(0)
    return weights / weights.sum(1, keepdim=True)


def _half_matrix(new: int, old: int, columns: int, like: Tensor) -> Tensor:
    """The matrix (new // 2 + 1, columns) of linear interpolation from frequency 0 to half a cycle."""
    step = old / like.new_ones(new).sum()
    at = torch.arange(new // 2 + 1, device=like.device, dtype=like.dtype) * step
    distance = (at[:, None] - torch.arange(columns, device=like.device, dtype=like.dtype)).abs()
    return (1 - distance).clamp_min(0)
