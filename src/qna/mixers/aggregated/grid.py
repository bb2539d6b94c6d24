"""The cells of a pooled map, and where they lie: for maps of any size, open ones of a recorder included."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from qna.parts.image_view import as_image
from qna.parts.open_size import is_open


class PooledAxis(NamedTuple):
    """One axis of a map and of what it is pooled to; cell p holds floor(p n / m) ... ceil((p + 1) n / m) - 1.

    So does torch's adaptive pooling: cells overlap where m does not divide n, and none is empty.

    Attributes:
        size: n, positions.
        cells: m, at most n.
    """

    size: int
    cells: int

    def bounds(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """First position of each cell, and the position behind its last."""
        cell = torch.arange(self.cells, device=device)
        return cell * self.size // self.cells, ((cell + 1) * self.size + self.cells - 1) // self.cells

    def averages(self, like: Tensor) -> Tensor:
        """The matrix (cells, size) that pools, in the dtype of `like` and on its device."""
        starts, ends = (bound[:, None] for bound in self.bounds(like.device))
        place = torch.arange(self.size, device=like.device)
        inside = (place >= starts) & (place < ends)
        return inside.to(like.dtype) / (ends - starts).to(like.dtype)

    def offsets(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Distances that there are between a position and the middle of a cell, and which pair has which.

        Returns:
            float64 (D,), rising, in positions; and int32 (size, cells), indices of it.
        """
        # cells of one length have their middles all on positions, or all between two
        step = 1 if is_open(self.size) or is_open(self.cells) or self.size % self.cells else 2
        far = 2 * self.size - 1 - (self.size + self.cells - 1) // self.cells
        starts, ends = self.bounds(device)
        doubled = 2 * torch.arange(self.size, device=device)[:, None] - (starts + ends - 1)
        distances = torch.arange(-far, far + 1, step, device=device)
        return distances.double() / 2, ((doubled + far) // step).int()


def pooled_axes(space: tuple[int, ...], cells: tuple[int, ...]) -> tuple[PooledAxis, PooledAxis]:
    """Rows and columns of a map that is pooled to `cells`."""
    rows, columns = map(PooledAxis, space, cells)
    return rows, columns


def pool(x: Tensor, axes: tuple[PooledAxis, PooledAxis]) -> Tensor:
    """The mean of each cell: (B, H, W, C) -> (B, cells down, cells across, C)."""
    rows, columns = axes
    if torch.compiler.is_compiling() or any(map(is_open, (*rows, *columns))):
        # exporters, and Inductor with open sizes, have no adaptive pooling to a size that is open
        return torch.einsum("ph,bhwc,qw->bpqc", rows.averages(x), x, columns.averages(x))
    return F.adaptive_avg_pool2d(as_image(x), (rows.cells, columns.cells)).movedim(1, -1)
