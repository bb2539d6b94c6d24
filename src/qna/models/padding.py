"""Padding that keeps every pixel: `ceil(size / stride)` windows on each axis."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def pad_same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Pad a map (B, C, H, W) so that windows at `stride` cover it, the smaller half first.

    The amount depends on the size ("SAME" of TensorFlow and Flax): 33 pixels in patches of 4 get 1 before
    and 2 behind; 224 get none.
    """
    sides = []
    for size in (x.shape[3], x.shape[2]):
        windows = -(-size // stride)
        total = max((windows - 1) * stride + kernel - size, 0)
        sides += [total // 2, total - total // 2]
    return F.pad(x, sides, value=value)
