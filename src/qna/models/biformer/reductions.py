"""What brings an image to a map, and a map to half its size, in BiFormer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna.models._parts.scripting import NotScripted
from qna.models._parts.shortcut import even_rows
from qna.models._parts.stem import check_images
from qna.parts.image_view import as_image
from qna.parts.open_size import is_open
from qna.parts.rows import PositionRows


class BiFormerStem(NotScripted, nn.Module):
    """Two convolutions of 3x3 at stride 2 with batch norms, a GELU between them; or patches and a batch norm.

    An image is filled up behind its end with zeros where patches of 4x4 do not divide it.
    """

    reduction = 4

    def __init__(self, in_chans: int, dim: int, *, overlapping: bool):
        super().__init__()
        self.overlapping = overlapping
        if overlapping:
            self.layers = nn.Sequential(
                nn.Conv2d(in_chans, dim // 2, 3, stride=2, padding=1),
                nn.BatchNorm2d(dim // 2),
                nn.GELU(),
                nn.Conv2d(dim // 2, dim, 3, stride=2, padding=1),
                nn.BatchNorm2d(dim),
            )
        else:
            self.layers = nn.Sequential(nn.Conv2d(in_chans, dim, 4, stride=4), nn.BatchNorm2d(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, ceil(H / 4), ceil(W / 4), dim)."""
        check_images(x, self.layers[0])  # type: ignore[arg-type]
        if not self.overlapping:
            x = F.pad(x, (0, -x.shape[3] % 4, 0, -x.shape[2] % 4))
        return self.layers(x).permute(0, 2, 3, 1).contiguous()


class BiFormerHalving(nn.Module):
    """A convolution of 3x3 at stride 2 and a batch norm; or a batch norm and a linear map of 2x2 patches.

    It doubles the channels. A map of odd size is filled up behind its end with zeros, after the norm, where
    patches do not divide it.
    """

    def __init__(self, dim: int, *, overlapping: bool):
        super().__init__()
        self.overlapping = overlapping
        if overlapping:
            self.conv = nn.Conv2d(dim, 2 * dim, 3, stride=2, padding=1)
            self.norm = nn.BatchNorm2d(2 * dim)
        else:
            self.norm = nn.BatchNorm2d(dim)
            self.conv = nn.Conv2d(dim, 2 * dim, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), 2 C)."""
        image = as_image(x)
        if self.overlapping:
            halved = self.norm(self.conv(image))
        else:
            halved = self.conv(F.pad(self.norm(image), (0, x.shape[2] % 2, 0, x.shape[1] % 2)))
        return halved.permute(0, 2, 3, 1).contiguous()

    def position_step(self, x: Tensor) -> tuple[PositionRows, PositionRows]:
        """Which positions each is made of, all alike."""
        rows = even_rows(x, 3, 2, 1) if self.overlapping else even_rows(x, 2, 2, 0)
        return rows, rows


class MapBatchNorm(nn.Module):
    """Batch norm of a map (B, H, W, C)."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        normed = self.norm(as_image(x)).movedim(1, -1)
        if any(map(is_open, x.shape)):
            # a recorder would compare the order in memory of what follows with sizes
            normed = normed.clone(memory_format=torch.contiguous_format)
        return normed
