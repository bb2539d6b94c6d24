"""What FocalNet is made of beside its modulation: what makes and halves maps, and a block of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from qna.models._parts.block import MixerBlock
from qna.models._parts.scripting import NotScripted
from qna.models._parts.stem import check_images
from qna.parts.image_view import as_image

# of all norms of these networks
NORM_EPS = 1e-5
# stride -> taps and padding of a convolution whose windows overlap
_OVERLAPPING = {4: (7, 2), 2: (3, 1)}


class NormedConvolution(NotScripted, nn.Module):
    """A convolution at a stride, and a norm of what comes out.

    A map that the stride does not divide is filled up behind its end with zeros: none of it is cropped.

    Args:
        dim: channels of the input.
        out_dim: channels of the output.
        stride: of the convolution, 2 or 4 where windows overlap.
        overlapping: taps of 7x7 at stride 4 and of 3x3 at stride 2; otherwise as many as the stride.
    """

    def __init__(self, dim: int, out_dim: int, *, stride: int, overlapping: bool):
        super().__init__()
        # the trap of copies in the wild: 7 taps with 2 positions of padding, not 3
        kernel, padding = _OVERLAPPING[stride] if overlapping else (stride, 0)
        self.stride = stride
        self.conv = nn.Conv2d(dim, out_dim, kernel, stride=stride, padding=padding)
        self.norm = nn.LayerNorm(out_dim, eps=NORM_EPS)

    def normed(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, ceil(H / stride), ceil(W / stride), C')."""
        image = F.pad(image, (0, -image.shape[3] % self.stride, 0, -image.shape[2] % self.stride))
        return self.norm(self.conv(image).permute(0, 2, 3, 1).contiguous())


class FocalStem(NormedConvolution):
    """What makes the first map of an image."""

    def __init__(self, in_chans: int, dim: int, *, patch_size: int, overlapping: bool):
        super().__init__(in_chans, dim, stride=patch_size, overlapping=overlapping)
        self.reduction = patch_size

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, ceil(H / patch), ceil(W / patch), dim)."""
        check_images(x, self.conv)
        return self.normed(x)


class FocalHalving(NormedConvolution):
    """What halves a map and doubles its channels."""

    def __init__(self, dim: int, *, overlapping: bool):
        super().__init__(dim, 2 * dim, stride=2, overlapping=overlapping)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), 2 C)."""
        return self.normed(as_image(x))


class PostNormBlock(MixerBlock):
    """``x = x + norm(mixer(x))``, then ``x = x + norm(mlp(x))``, on maps (B, H, W, C).

    A branch's scales come after its norm. The mixer keeps the shape of its map; arguments as `MixerBlock`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        x = x + self.drop_path1(self.scale1(self.norm1(self.mixer(x))))
        return x + self.drop_path2(self.scale2(self.norm2(self.mlp(x))))

    def held(self, size: Sequence[int]) -> int:
        """Elements beside an input of `size` = (B, H, W, C) at the worst moment of inference.

        While the mixer runs, or in the MLP: the map, and the hidden channels before and after the activation.
        """
        n = math.prod(size)
        hidden = n // size[-1] * self.mlp.fc1.out_features
        return max(cast(Any, self.mixer).held(size), n + 2 * hidden)
