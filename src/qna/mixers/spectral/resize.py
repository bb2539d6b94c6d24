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
    # as real numbers, as the exporter of ONNX puts no columns of complex ones together
    parts = _as_read(torch.view_as_real(weight), width)
    rows = _periodic_matrix(height_to, parts.shape[0], parts)
    columns = _half_matrix(width_to, width, parts.shape[1], parts)
    return torch.view_as_complex(torch.einsum("yh,xw,hwcp->yxcp", rows, columns, parts).contiguous())


def _as_read(parts: Tensor, width: int) -> Tensor:
    """Hermitian where a column is its own mirror; for odd widths with one column beyond the half plane."""
    first, last = parts[:, :1], parts[:, -1:]
    first = (first + _mirrored(first)) / 2
    if width == 1:
        return torch.cat([first, first], 1)
    if width % 2:
        return torch.cat([first, parts[:, 1:], _mirrored(last)], 1)
    return torch.cat([first, parts[:, 1:-1], (last + _mirrored(last)) / 2], 1)


def _mirrored(column: Tensor) -> Tensor:
    """A column (H, 1, C, 2) of a real map's plane, as the column of the opposite frequency has it."""
    return column.flip(0).roll(1, 0) * column.new_tensor([1.0, -1.0])


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
