"""Padding that keeps every pixel: `ceil(size / stride)` windows on each axis."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def pad_same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Pad a map (B, C, H, W) so that windows at `stride` cover it, the smaller half first.

    The amount depends on the size ("SAME" of TensorFlow and Flax): 33 pixels in patches of 4 get 1 before
    and 2 behind; 224 get none.
    """
    sides = [*same_margins(x.shape[3], kernel, stride), *same_margins(x.shape[2], kernel, stride)]
    return F.pad(x, sides, value=value)


def same_margins(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Positions that `pad_same` puts before and after an axis of `size`."""
    # one form of "rounded up" for all maps: exporters have to see that sizes of two paths are equal
    total = (size + stride - 1) // stride * stride - stride + kernel - size
    if kernel < stride:
        # only then can the map end between two windows
        total = max(total, 0)
    return total // 2, total - total // 2
