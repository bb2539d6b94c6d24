"""Resizing of learned tables and of maps, as two matrix products each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from qna.parts.open_size import is_open


def resize_table(table: Tensor, size: Sequence[int]) -> Tensor:
    """A table (H, W, ...) at another height and width.

    Keys' cubic kernel (a = -1/2) about pixel centres, widened where a table shrinks, its taps outside the
    table left out and the rest renormalised: what `jax.image.resize` does, with which the authors fine-tune.
    The products, unlike torch's antialiased interpolation, compile for sizes that are not known beforehand.
    """
    if not any(map(is_open, size)) and table.shape[:2] == tuple(size):
        return table
    rows = cubic_matrix(size[0], table.shape[0], table)
    columns = cubic_matrix(size[1], table.shape[1], table)
    return torch.einsum("yh,xw,hw...->yx...", rows, columns, table)


def cubic_matrix(new: int, old: int, like: Tensor) -> Tensor:
    """The matrix (new, old) that resamples `old` values to `new`; each row sums to 1."""
    # of a sum, not of `new` itself: what records for any size sees a number, and would keep on which side of
    # 1 it was
    step = old / like.new_ones(new).sum()
    centres = (torch.arange(new, device=like.device, dtype=like.dtype) + 0.5) * step - 0.5
    distance = centres[:, None] - torch.arange(old, device=like.device, dtype=like.dtype)
    d = distance.abs() / step.clamp_min(1)
    near = (1.5 * d - 2.5) * d * d + 1
    far = ((2.5 - 0.5 * d) * d - 4) * d + 2
    weights = torch.where(d < 1, near, torch.where(d < 2, far, 0))
    return weights / weights.sum(1, keepdim=True)


def linear_matrix(new: int, old: int, like: Tensor) -> Tensor:
    """The matrix (new, old) of linear interpolation about position centres, as torch's `bilinear`."""
    step = old / like.new_ones(new).sum()
    centres = ((torch.arange(new, device=like.device, dtype=like.dtype) + 0.5) * step - 0.5).clamp_min(0)
    distance = centres.clamp_max(old - 1)[:, None] - torch.arange(old, device=like.device, dtype=like.dtype)
    return (1 - distance.abs()).clamp_min(0)


def mean_matrix(new: int, old: int, like: Tensor) -> Tensor:
    """The matrix (new, old) of means over `new` intervals of `old` positions, as torch's adaptive pooling.

    Interval i holds the positions from ``i old // new`` to before ``ceil((i + 1) old / new)``; intervals
    overlap where `new` does not divide `old`.
    """
    number = torch.arange(new, device=like.device)[:, None]
    place = torch.arange(old, device=like.device)
    inside = (place >= number * old // new) & (place < ((number + 1) * old + new - 1) // new)
    inside = inside.to(like.dtype)
    return inside / inside.sum(1, keepdim=True)


def resample(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """A map (B, H, W, C) resampled by matrices (H', H) and (W', W): (B, H', W', C)."""
    return torch.einsum("xw,byw...->byx...", columns, torch.einsum("yh,bh...->by...", rows, x))
