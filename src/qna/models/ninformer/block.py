"""What NiNformer is made of beside its mixer: what cuts an image into patches, and the block."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from qna._core.errors import InvalidInput
from qna.mixers import MixerGating2d
from qna.models._parts.scripting import NotScripted
from qna.models._parts.stem import check_images
from qna.parts.drop_path import DropPath
from qna.parts.mlp import ChannelMlp


class NiNStem(NotScripted, nn.Module):
    """Each patch through one linear map, of images of one size."""

    def __init__(self, in_chans: int, dim: int, *, patch_size: int, image_size: tuple[int, int]):
        super().__init__()
        self.reduction = patch_size
        self.image_size = image_size
        self.conv = nn.Conv2d(in_chans, dim, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, H / patch, W / patch, dim)."""
        check_images(x, self.conv)
        if tuple(x.shape[2:]) != self.image_size:
            height, width = self.image_size
            raise InvalidInput(
                f"NiNformer has weights for each patch of images of {height} x {width} "
                f"pixels and takes no other size, got {x.shape[2]} x {x.shape[3]}; resize the images, or "
                f"build it with img_size=({x.shape[2]}, {x.shape[3]})"
            )
        return self.conv(x).permute(0, 2, 3, 1).contiguous()


class NiNBlock(nn.Module):
    """``x = x + mixer(norm(x))``, then ``x = x + mlp(norm(x))``, on maps (B, H, W, C) of one size.

    Both norms are one module, with one set of weights, as published. `drop_path` is the probability that a
    branch is left out for an image, in training.
    """

    def __init__(
        self, dim: int, *, map_size: int | Sequence[int], hidden: int, drop: float, drop_path: float = 0.0
    ):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.mixer = MixerGating2d(dim, map_size=map_size, hidden=hidden, drop=drop)
        self.drop_path1 = DropPath(drop_path)
        self.mlp = ChannelMlp(dim, hidden, approximate="none", drop=drop)
        self.drop_path2 = DropPath(drop_path)
        # as torch makes them, as the authors' do
        self.mlp.fc1.reset_parameters()
        self.mlp.fc2.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        x = x + self.drop_path1(self.mixer(self.norm(x)))
        return x + self.drop_path2(self.mlp(self.norm(x)))

    def held(self, size: Sequence[int]) -> int:
        """Elements beside an input of `size` = (B, H, W, C) at the worst moment of inference.

        While the mixer runs, beside its normalised input; or in the MLP: the map, its normalised form, and
        the hidden channels before and after the activation.
        """
        n = math.prod(size)
        hidden = n // size[-1] * self.mlp.fc1.out_features
        return max(n + self.mixer.held(size), 2 * n + 2 * hidden)
