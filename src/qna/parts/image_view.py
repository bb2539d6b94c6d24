"""A map (B, *space, C) as convolutions and poolings take it."""

from __future__ import annotations

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
