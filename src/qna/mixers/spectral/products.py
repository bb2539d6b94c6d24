"""Transforms of a map as products with matrices of sines and cosines: for graphs whose sizes are open."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def gate_by_products(x: Tensor, filters: Callable[[int, int], Tensor]) -> Tensor:
    """``irfft2(K * rfft2(x))``, orthonormal, of a map (B, H, W, C), without a number that is complex.

    ONNX Runtime mistakes the sizes of transforms to half a plane and from it, where they are open, and its
    transforms lose digits as sizes grow. Products cost about 2 H W C (W + 2 H) multiply-adds.

    Args:
        x: a real map.
        filters: (H, W) -> K of the half plane, (H, W // 2 + 1, C).
    """
    height, width = x.shape[1:3]
    cos_h, sin_h = _turns(height, height, x)
    cos_w, sin_w = _turns(width // 2 + 1, width, x)

    def along(matrix: Tensor, map_: Tensor) -> Tensor:
        return torch.einsum("kh,bhwc->bkwc", matrix, map_)

    def across(matrix: Tensor, map_: Tensor) -> Tensor:
        return torch.einsum("kw,bhwc->bhkc", matrix, map_)

    real, imaginary = across(cos_w, x), -across(sin_w, x)
    real, imaginary = (
        along(cos_h, real) + along(sin_h, imaginary),
        along(cos_h, imaginary) - along(sin_h, real),
    )
    by_real, by_imaginary = torch.view_as_real(filters(height, width)).to(x.dtype).unbind(-1)
    real, imaginary = (
        real * by_real - imaginary * by_imaginary,
        real * by_imaginary + imaginary * by_real,
    )
    real, imaginary = (
        along(cos_h, real) - along(sin_h, imaginary),
        along(cos_h, imaginary) + along(sin_h, real),
    )
    # frequencies that are not their own mirror stand for two
    at = torch.arange(width // 2 + 1, device=x.device)
    stands_for = torch.where((at == 0) | (2 * at == width), 1, 2)[:, None]
    return across((cos_w * stands_for).T, real) - across((sin_w * stands_for).T, imaginary)


def _turns(frequencies: int, size: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines (frequencies, size) of the orthonormal transform along an axis."""
    positions = torch.arange(size, device=like.device)
    # a tensor, since the exporter knows no remainder of an open size
    count = torch.ones_like(positions).sum()
    # of less than a turn, so that no digits are lost
    parts = torch.arange(frequencies, device=like.device)[:, None] * positions % count
    count = count.to(like.dtype)
    angle = parts.to(like.dtype) * (2 * torch.pi / count)
    return angle.cos() / count.sqrt(), angle.sin() / count.sqrt()
