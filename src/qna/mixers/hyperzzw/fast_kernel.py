"""What a gated map is multiplied with: recursive gates of the map before and after it was gated."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core.errors import InvalidInput
from qna.parts.standardize import standardize_images


class RecursiveGate(nn.Module):
    """The recursive gated unit: (B, C, H, W) -> the same.

    ``y = Wy (GELU(IS(Wk x * Wq (Wv x))) + p)``, where IS standardises each channel of each image and p is a
    map of weights that all channels share.
    """

    def __init__(self, dim: int, size: Sequence[int]):
        super().__init__()
        self.key, self.value, self.query, self.out = (one_tap(dim, dim, "linear") for _ in range(4))
        self.shared_bias = nn.Parameter(torch.zeros(1, 1, *size))

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        product = self.key(image) * self.query(self.value(image))
        return self.out(F.gelu(standardize_images(product)) + self.shared_bias)


class FastKernel(nn.Module):
    """``IS(gate(x) + gate'(x'))`` of a map x and the gated one x', two gates with weights of their own."""

    def __init__(self, dim: int, size: Sequence[int]):
        super().__init__()
        self.gate = RecursiveGate(dim, size)
        self.gated_gate = RecursiveGate(dim, size)

    def forward(self, image: Tensor, gated: Tensor) -> Tensor:
        """Two maps (B, C, H, W) -> the same."""
        return standardize_images(self.gated_gate(gated) + self.gate(image))

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for maps of `size` = (B, C, H, W)."""
        return 8 * size[1] * math.prod(size)


def one_tap(dim: int, out_dim: int, nonlinearity: str) -> nn.Conv2d:
    """A linear map of every position of (B, C, H, W), begun with variance 1 / C, or 2 / C before a ReLU."""
    convolution = nn.Conv2d(dim, out_dim, 1)
    if nonlinearity == "linear":
        nn.init.kaiming_uniform_(convolution.weight, nonlinearity="linear")
    else:
        nn.init.kaiming_normal_(convolution.weight)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return convolution


def check_map_size(owner: str, found: Sequence[int], wanted: Sequence[int]) -> None:
    """The map must have the size of the hyper-kernel."""
    if tuple(found) != tuple(wanted):
        raise InvalidInput(
            f"{owner}: its hyper-kernel is {wanted[0]} x {wanted[1]}, got a map of {found[0]} x {found[1]}; "
            "build it for that size, or resize the map"
        )
