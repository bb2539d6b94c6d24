"""How regions of equal size tile a map, which is filled up behind its end where they do not divide it."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from qna.parts.open_size import is_open, part_of


class Regions(NamedTuple):
    """Regions of a map of `height` by `width` positions.

    Attributes:
        down: regions in a column.
        across: regions in a row.
        rows: positions in a column of a region.
        columns: positions in a row of a region.
        height: of the map that they tile; the rest of the last ones is padding.
        width: of that map.
    """

    down: int
    across: int
    rows: int
    columns: int
    height: int
    width: int

    @property
    def number(self) -> int:
        """Regions of a map."""
        return self.down * self.across

    @property
    def tokens(self) -> int:
        """Positions of a region."""
        return self.rows * self.columns

    @property
    def pads(self) -> bool:
        """Whether some region holds padding; in a graph for maps of any size it may."""
        return any(map(is_open, self)) or self.number * self.tokens != self.height * self.width

    def inside(self, device: torch.device) -> Tensor:
        """Which positions of each region lie in the map: (number, tokens)."""
        down = torch.arange(self.down * self.rows, device=device) < self.height
        across = torch.arange(self.across * self.columns, device=device) < self.width
        return self.tile((down[:, None] & across)[None, :, :, None])[0, :, :, 0]

    def fill_up(self, x: Tensor) -> Tensor:
        """The map (B, H, W, C) with zeros behind its end: (B, down * rows, across * columns, C)."""
        if not self.pads:
            return x
        sizes = (self.down * self.rows, self.across * self.columns)
        if any(map(is_open, self)):
            # a recorder cannot tell that what is padded has as many positions as it must have
            for axis, (size, n) in enumerate(zip(sizes, (self.height, self.width), strict=True), 1):
                place = torch.arange(size, device=x.device)
                real = (place < n).view(-1, *(1,) * (3 - axis))
                x = torch.where(real, x.index_select(axis, place.clamp(max=n - 1)), 0)
            return x
        return F.pad(x, (0, 0, 0, sizes[1] - self.width, 0, sizes[0] - self.height))

    def tile(self, filled: Tensor) -> Tensor:
        """(B, down * rows, across * columns, C) -> (B, number, tokens, C), both row by row."""
        tiled = filled.unflatten(2, (self.across, self.columns)).unflatten(1, (self.down, self.rows))
        return tiled.transpose(2, 3).flatten(3, 4).flatten(1, 2)

    def untile(self, tiled: Tensor) -> Tensor:
        """(B, number, tokens, C) -> (B, down * rows, across * columns, C)."""
        split = tiled.unflatten(2, (self.rows, self.columns)).unflatten(1, (self.down, self.across))
        return split.transpose(2, 3).flatten(3, 4).flatten(1, 2)

    def crop(self, filled: Tensor) -> Tensor:
        """(B, down * rows, across * columns, C) -> (B, height, width, C)."""
        return part_of(part_of(filled, 1, 0, self.height), 2, 0, self.width)
