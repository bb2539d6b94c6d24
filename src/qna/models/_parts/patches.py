"""What brings an image to a map, and a map to half its size, patch by patch, as in Swin."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from qna.models._parts.scripting import NotScripted
from qna.models._parts.shortcut import even_rows
from qna.models._parts.stem import check_images
from qna.parts.linear import apply_linear
from qna.parts.rows import PositionRows

# torch's, of all norms of most networks that are made of these
NORM_EPS = 1e-5


class NormedPatchStem(NotScripted, nn.Module):
    """Each patch through one linear map, and a norm; an image is filled up behind its end with zeros."""

    def __init__(self, in_chans: int, dim: int, reduction: int, *, norm_eps: float = NORM_EPS):
        super().__init__()
        self.reduction = reduction
        self.conv = nn.Conv2d(in_chans, dim, reduction, stride=reduction)
        self.norm = nn.LayerNorm(dim, eps=norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, ceil(H / reduction), ceil(W / reduction), dim)."""
        check_images(x, self.conv)
        x = F.pad(x, (0, -x.shape[3] % self.reduction, 0, -x.shape[2] % self.reduction))
        return self.norm(self.conv(x).permute(0, 2, 3, 1).contiguous())


class PatchHalving(nn.Module):
    """Every patch of 2x2 positions normalised and through one linear map (Swin's, Liu et al., ICCV 2021).

    A map of odd size is filled up behind its end with zeros.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim, eps=NORM_EPS)
        self.linear = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), 2 C)."""
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        rows = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
        # of a patch the left column comes first, each from top to bottom
        patches = rows.permute(0, 1, 3, 4, 2, 5).flatten(3)
        return apply_linear(self.linear, self.norm(patches))

    def position_step(self, x: Tensor) -> tuple[PositionRows, PositionRows]:
        """Which positions each is made of, all alike."""
        rows = even_rows(x, 2, 2, 0)
        return rows, rows
