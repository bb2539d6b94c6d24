"""OverLoCKs that lack the overview, or dynamic kernels too; nothing else differs."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from qna._core.seeds import derive_seed, seeded
from qna.mixers import ContMix2d, DilatedReparam2d
from qna.models.overlock import OverLoCK, OverLoCKVariant
from qna.parts.image_view import on_image
from qna.parts.initializers import init_linear_, lecun_normal_
from qna.parts.linear import apply_linear

WHOLE, BLIND, STATIC = "overlock", "no-overview", "static-kernels"
NETWORKS = (WHOLE, BLIND, STATIC)
_SIZE = OverLoCKVariant(
    (16, 16, 32, 32), (1, 1, 1, 1), (2, 1), (2, 2), (7, 7, 5, 5), 3, 2, 2, 64, image_size=64
)


class StaticKernel(nn.Module):
    """A static kernel where `ContMix2d` stood: that mixer's own, its norm, and its map to the output."""

    def __init__(self, dim: int, *, kernel_size: int, out_dim: int):
        super().__init__()
        self.local = DilatedReparam2d(dim, kernel_size=kernel_size)
        self.local_norm = nn.BatchNorm2d(dim)
        self.out = nn.Linear(dim, out_dim)

    def forward(self, x: Tensor, query: Tensor, context: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, H, W, out_dim); neither query nor context is looked at."""
        return apply_linear(self.out, on_image(self.local_norm, self.local(x)))


class NoOverview(nn.Linear):
    """Zeros where the overview stood."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) -> zeros (..., out_features)."""
        return 0 * super().forward(input)


def build(name: str, *, channels: int, seed: int) -> OverLoCK:
    """A contender for images of so many channels; what contenders share is drawn alike.

    All maps begin with variance 1 / inputs: the authors' deviation of 0.02 is made for wider networks.
    """
    with seeded(derive_seed(seed, "weights")):
        network = OverLoCK(_SIZE, in_chans=channels, num_classes=10)
        for module in network.modules():
            if isinstance(module, nn.Linear):
                init_linear_(module)
            elif isinstance(module, nn.Conv2d):
                lecun_normal_(module.weight, module.weight[0].numel())
        if name != WHOLE:
            third: Any = network.stages[2]
            place = third.ends[1] - 1
            old = cast(nn.Linear, third[place])
            third[place] = NoOverview(old.in_features, old.out_features)
        if name == STATIC:
            for block in [m for m in network.modules() if isinstance(getattr(m, "mixer", None), ContMix2d)]:
                old_mixer: Any = block.mixer
                static = StaticKernel(
                    old_mixer.dim, kernel_size=old_mixer.kernel_size, out_dim=old_mixer.out_dim
                )
                # as the whole network's, drawn already
                static.local, static.out = old_mixer.local, old_mixer.out
                block.mixer = static
    return network


def enlarged(images: Tensor, size: int) -> Tensor:
    """uint8 (N, C, H, W) enlarged to `size` pixels per axis, by linear interpolation."""
    large = torch.nn.functional.interpolate(
        images.float(), (size, size), mode="bilinear", align_corners=False
    )
    return large.round().to(torch.uint8)
