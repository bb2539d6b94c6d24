"""Where windows of any size and place lie on a map, and what is read there between its positions."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# more windows than an axis has
_MANY = 2**32


class WindowGrid(NamedTuple):
    """How default windows tile an axis.

    Attributes:
        size: positions of the map.
        window: positions of a window.
        before: positions that the first window hangs over the map's start.
    """

    size: int
    window: int
    before: int

    @classmethod
    def over(cls, size: int, window: int, *, centred: bool) -> WindowGrid:
        """Windows over so many positions; what they lack lies behind the map, or half of it before."""
        lacking = (size + window - 1) // window * window - size
        return cls(size, window, lacking // 2 if centred else 0)

    @property
    def tiles(self) -> int:
        """Number of windows."""
        return (self.size + self.window - 1) // self.window

    @property
    def after(self) -> int:
        """Positions that the last window hangs over the map's end."""
        return self.tiles * self.window - self.before - self.size

    @property
    def whole(self) -> int:
        """Windows that fit into the map, at least 1: what the unit of an offset is divided by."""
        fit = self.size // self.window
        # 1 where none fits, without a comparison, to which a recorder would keep
        return fit + 1 - (fit + _MANY - 1) // _MANY

    def places(self, scale: Tensor, offset: Tensor, axis: int) -> Tensor:
        """Where along this axis the slots of each window read the map.

        A window is scaled around its middle by ``1 + scale``. An offset of 1 moves it by half of the padded
        map, from its first to its last position, over the windows that fit into the map.

        Args:
            scale: (..., tiles down, tiles across).
            offset: the same.
            axis: 0 where this one is down, 1 where it is across.

        Returns:
            (..., tiles down, tiles across, window), in positions from the map's start.
        """
        tile = torch.arange(self.tiles, device=scale.device) * self.window - self.before
        slot = torch.arange(self.window, device=scale.device)
        plain = (tile[:, None] + slot).to(scale.dtype)
        # windows across stand beside each other, those down stand apart
        plain = plain[:, None] if axis == 0 else plain
        from_middle = slot.to(scale.dtype) - (self.window - 1) / 2
        step = (self.tiles * self.window - 1) / (2 * self.whole)
        return plain + from_middle * scale[..., None] + (offset * step)[..., None]


def read_between(maps: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Bilinear samples of maps, which are 0 outside.

    Args:
        maps: (N, C, H, W).
        down: places (N, T, K), in positions from the map's start.
        across: the same.

    Returns:
        (N, C, T, K).
    """
    # as if positions had an extent of 1: unlike in the other convention a map of one position has an outside
    x = (2 * across + 1) / maps.shape[3] - 1
    y = (2 * down + 1) / maps.shape[2] - 1
    return F.grid_sample(maps, torch.stack([x, y], -1), padding_mode="zeros", align_corners=False)


def shares_of_positions(down: Tensor, across: Tensor, height: int, width: int) -> Tensor:
    """What part of a map's positions is in each sample of `read_between`.

    Args:
        down: (..., K) in positions from the map's start.
        across: the same.
        height: of the map.
        width: of the map.

    Returns:
        (..., K, H * W); a sample sums to 1 inside the map, to less at its border, to 0 outside.
    """
    rows = (1 - (down[..., None] - torch.arange(height, device=down.device)).abs()).clamp(min=0)
    columns = (1 - (across[..., None] - torch.arange(width, device=down.device)).abs()).clamp(min=0)
    return (rows[..., :, None] * columns[..., None, :]).flatten(-2)
