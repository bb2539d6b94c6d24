"""The queries of a whole image: its map, made small by light convolutions and maxima."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from qna._core.checks import natural
from qna.parts.depthwise_residual import DepthwiseResidual
from qna.parts.image_view import on_image


class GlobalQuery(nn.Sequential):
    """GC ViT's global query generator (Hatamizadeh et al., ICML 2023).

    `halvings` times a `DepthwiseResidual` and a maximum of 3 x 3 positions at stride 2; without halvings the
    residual alone. Of a map that is 2^halvings windows wide and high it makes one vector for each place of a
    window.

    Args:
        dim: channels.
        halvings: how often height and width are halved, rounded up.

    Raises:
        InvalidInput: `halvings` is negative.
    """

    def __init__(self, dim: int, halvings: int):
        natural(type(self).__name__, halvings=halvings)
        layers: list[nn.Module] = []
        for _ in range(halvings):
            layers += [DepthwiseResidual(dim), MaximumHalving()]
        super().__init__(*(layers or [DepthwiseResidual(dim)]))
        self.halvings = halvings

    def forward(self, input: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, ceil(H / 2^halvings), ceil(W / 2^halvings), C)."""
        return super().forward(input)

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size` = (B, H, W, C)."""
        residuals = [layer for layer in self if isinstance(layer, DepthwiseResidual)]
        return sum(layer.macs(_halved(size, number)) for number, layer in enumerate(residuals))

    def out_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Shape of what is made of a map of `size` = (B, H, W, C)."""
        return _halved(size, self.halvings)


class MaximumHalving(nn.Module):
    """The maximum of 3 x 3 positions around every second one."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), C)."""
        return on_image(lambda image: F.max_pool2d(image, 3, stride=2, padding=1), x)


def _halved(size: Sequence[int], times: int) -> tuple[int, ...]:
    batch, height, width, channels = size
    return batch, -(-height // 2**times), -(-width // 2**times), channels
