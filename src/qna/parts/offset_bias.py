"""A bias of attention for each offset between two positions of a window."""

from __future__ import annotations

import torch
from torch import Tensor


def offset_biases(table: Tensor, rows: int, columns: int) -> Tensor:
    """Biases (h, n, n) of a window of ``n = rows * columns`` positions, query before key.

    Args:
        table: (2 R - 1, 2 S - 1, h), the biases of the offsets (query - key) in windows of R x S positions;
            no offset lies in its middle.
        rows: of the window, at most R.
        columns: of the window, at most S.
    """
    height, width = table.shape[:2]
    # heads first: what is looked up then lies as it is added to scores
    table, device = table.movedim(-1, 0), table.device
    r = torch.arange(rows, device=device)
    c = torch.arange(columns, device=device)
    down = (r[:, None] - r + height // 2)[:, None, :, None]
    across = (c[:, None] - c + width // 2)[None, :, None, :]
    offsets = (down * width + across).flatten()
    if device.type == "cpu":
        # several times faster than an index of tensors, a dozen times with gradients; on a GPU the order
        # in which those are added up would not be fixed
        biases = table.flatten(1).index_select(1, offsets)
    else:
        biases = table.flatten(1)[:, offsets]
    return biases.view(-1, rows * columns, rows * columns)
