"""What the dynamic kernels of ContMix need beside its layers: sizes, and biases by offset."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from qna.ops.neighborhood.geometry import window_axes


def space_of_kernel(space: Sequence[int], kernel: int) -> tuple[int, int]:
    """Height and width, in whole numbers, at which a map's shorter side has `kernel` positions at least."""
    height, width = space
    # of symbols without a question about them, to which a recorder would keep
    shorter = torch.sym_min(height, width)
    longer = torch.sym_max(shorter, kernel)
    # the outer maximum changes nothing, and tells a recorder that the kernel fits
    return tuple(torch.sym_max(n * longer // shorter, kernel) for n in (height, width))  # type: ignore[return-value]


def offset_bias(table: Tensor, kernel: int, space: Sequence[int]) -> Tensor:
    """Entries of a table (groups, 2 kernel - 1, 2 kernel - 1) by the offset of each key.

    Returns:
        (groups, kernel^2, H W), of windows that move inwards at borders.
    """
    rows, columns = (_offsets(axis, table.device) for axis in window_axes("ContMix2d", space, kernel))
    # to select is five times faster than an index of tensors, also with gradients; on a GPU the order in
    # which those are added up would not be fixed
    pick = _selected if table.device.type == "cpu" else _indexed
    # (groups, kernel, H, kernel, W), then taps before positions
    return pick(table, rows, columns).transpose(2, 3).flatten(3).flatten(1, 2)


def _selected(table: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Entries of rows (k, H) and columns (k, W): (groups, k, H, k, W)."""
    by_column = table.index_select(2, columns.flatten()).unflatten(2, columns.shape)
    return by_column.index_select(1, rows.flatten()).unflatten(1, rows.shape)


def _indexed(table: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The same."""
    return table[:, rows][..., columns]


def _offsets(axis, device: torch.device) -> Tensor:
    """(kernel, size): of each tap and query, the offset to the key, counted from the least."""
    queries = torch.arange(axis.size, device=device)
    taps = torch.arange(axis.kernel, device=device)[:, None]
    return axis.starts(queries) + taps - queries + axis.kernel - 1
