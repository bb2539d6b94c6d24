"""Views of a map (B, *space, C) as other layers take it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qna.parts.open_size import is_open


def as_image(x: Tensor) -> Tensor:
    """(B, *space, C) -> (B, C, *space), a channels-last view: no copy is made here or on the way back."""
    image = x.movedim(-1, 1)
    if any(map(is_open, image.shape)):
        # a recorder would keep to sizes above 1, at which such a view has one order in memory alone
        return image.clone(memory_format=torch.contiguous_format)
    return image


def every_nth(x: Tensor, stride: int) -> Tensor:
    """Every `stride`-th position per axis: (B, H, W, C) -> (B, ceil(H / stride), ceil(W / stride), C)."""
    if stride == 1:
        return x
    kept = x[:, ::stride, ::stride]
    if any(map(is_open, x.shape)):
        # a recorder would compare the order in memory with sizes
        return kept.clone(memory_format=torch.contiguous_format)
    return kept


def on_image(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What `layer`, (B, C, *space) -> (B, C', *space'), makes of a map (B, *space, C): (B, *space', C')."""
    y = layer(as_image(x)).movedim(1, -1)
    if any(map(is_open, x.shape)):
        # a recorder would compare the order in memory of what follows with sizes
        return y.clone(memory_format=torch.contiguous_format)
    return y
