"""Initial values that more than one family uses."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor

# standard deviation of a standard normal that is cut at +-2
_CUT_AT_2 = 0.87962566103423978


def truncated_normal_(tensor: Tensor, std: float) -> Tensor:
    """Fill `tensor` with `std` times a standard normal cut at +-2; its own deviation is then 0.88 `std`."""
    if isinstance(tensor, FakeTensor):
        # torch draws again what falls outside, which asks for values; a fake tensor has none
        return tensor
    return nn.init.trunc_normal_(tensor, std=std, a=-2 * std, b=2 * std)


def lecun_normal_(tensor: Tensor, fan_in: int) -> Tensor:
    """Fill `tensor` from a normal cut at two deviations, scaled so that its variance is ``1 / fan_in``."""
    return truncated_normal_(tensor, math.sqrt(1 / fan_in) / _CUT_AT_2)


@torch.no_grad()
def init_linear_(layer: nn.Linear) -> None:
    """LeCun normal weights and a bias of zero."""
    lecun_normal_(layer.weight, layer.in_features)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
