"""Stems: from an image (B, C, H, W) to a map of tokens (B, H', W', dim)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from qna._core.errors import InvalidInput
from qna.models._parts.padding import pad_same
from qna.models._parts.scripting import NotScripted
from qna.parts.initializers import lecun_normal_


class PatchStem(NotScripted, nn.Module):
    """Each patch, through one linear map; the stem of the published models. Borders are zero-padded."""

    def __init__(self, in_chans: int, dim: int, patch_size: int):
        super().__init__()
        self.reduction = patch_size
        self.conv = nn.Conv2d(in_chans, dim, patch_size, stride=patch_size, bias=False)
        lecun_normal_(self.conv.weight, in_chans * patch_size**2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, ceil(H / patch), ceil(W / patch), dim)."""
        check_images(x, self.conv)
        x = self.conv(pad_same(x, self.reduction, self.reduction))
        return x.permute(0, 2, 3, 1).contiguous()


class ResNetStem(NotScripted, nn.Module):
    """A 7x7 convolution at stride 2, batch norm, GELU and a 3x3 maximum at stride 2."""

    reduction = 4

    def __init__(self, in_chans: int, dim: int):
        super().__init__()
        self.conv = nn.Conv2d(in_chans, dim, 7, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(dim)
        lecun_normal_(self.conv.weight, in_chans * 49)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, ceil(ceil(H / 2) / 2), ceil(ceil(W / 2) / 2), dim)."""
        check_images(x, self.conv)
        x = self.norm(self.conv(pad_same(x, 7, 2)))
        x = pad_same(F.gelu(x, approximate="tanh"), 3, 2, value=float("-inf"))
        return F.max_pool2d(x, 3, stride=2).permute(0, 2, 3, 1).contiguous()


def check_images(x: Tensor, conv: nn.Conv2d) -> None:
    """Images must be (B, C, H, W), with pixels, and the channels that `conv` takes."""
    check_image_channels(x, conv.in_channels)


def check_image_channels(x: Tensor, in_chans: int) -> None:
    """Images must be (B, C, H, W), with pixels, and so many channels."""
    if x.ndim != 4 or x.shape[1] != in_chans:
        raise InvalidInput(f"images must be (B, C, H, W) with C = {in_chans}, got {tuple(x.shape)}")
    if 0 in x.shape[2:]:
        raise InvalidInput(f"only the batch may be empty, got images {tuple(x.shape)}")


# name -> stem of (channels of the image, dim, patch size); the ResNet stem's reduction is always 4
STEMS = {
    "patch": PatchStem,
    "resnet": lambda in_chans, dim, patch_size: ResNetStem(in_chans, dim),
}
