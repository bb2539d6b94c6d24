"""What brings an image to a map, and a map to half its size, in L2ViT."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from qna.models._parts.patches import NORM_EPS
from qna.models._parts.scripting import NotScripted
from qna.models._parts.shortcut import even_rows
from qna.models._parts.stem import check_images
from qna.parts.image_view import on_image
from qna.parts.rows import PositionRows


class L2ViTStem(NotScripted, nn.Module):
    """Two convolutions of 3x3 at stride 2 with batch norms, a ReLU between them, and a norm of the channels.

    An image that patches of 4x4 do not divide is filled up behind its end with zeros.
    """

    reduction = 4

    def __init__(self, in_chans: int, dim: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_chans, dim // 2, 3, stride=2, padding=1),
            nn.BatchNorm2d(dim // 2),
            nn.ReLU(),
            nn.Conv2d(dim // 2, dim, 3, stride=2, padding=1),
            nn.BatchNorm2d(dim),
        )
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, ceil(H / 4), ceil(W / 4), dim)."""
        check_images(x, self.layers[0])  # type: ignore[arg-type]
        # before the first convolution: beyond an odd end its bias would stand where zeros are expected
        x = F.pad(x, (0, -x.shape[3] % 4, 0, -x.shape[2] % 4))
        return self.norm(self.layers(x).permute(0, 2, 3, 1).contiguous())


class NormThenHalve(nn.Module):
    """A norm, and every patch of 2x2 positions through one linear map that doubles the channels.

    A map of odd size is filled up behind its end with zeros, after the norm.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.conv = nn.Conv2d(dim, 2 * dim, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), 2 C)."""
        x = F.pad(self.norm(x), (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        return on_image(self.conv, x).contiguous()

    def position_step(self, x: Tensor) -> tuple[PositionRows, PositionRows]:
        """Which positions each is made of, all alike."""
        rows = even_rows(x, 2, 2, 0)
        return rows, rows
