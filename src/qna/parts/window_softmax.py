"""The softmax inside learned-query attention, spelled out for inspection."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from qna.ops._shared.window import Window


def window_softmax(scores: Tensor, bias: Tensor, window: Window) -> Tensor:
    """Shares that each window gives to its taps.

    Args:
        scores: (B, *space, L, h).
        bias: (*kernel, L, h).
        window: geometry over `space`.

    Returns:
        (B, *space', L, h, *kernel), at least fp32; 0 outside the map. Its memory grows with the window.
    """
    dtype = torch.promote_types(scores.dtype, torch.float32)
    margins = window.margins()
    padded = F.pad(scores.to(dtype), [0, 0, 0, 0, *margins], value=float("-inf"))
    bias = bias.to(dtype)
    taps = torch.stack([padded[(slice(None), *place)] + bias[tap] for tap, place in window.taps()], dim=-1)
    # also a window without any position in the map gives 0
    shares = torch.where(taps == float("-inf"), 0, taps.softmax(-1))
    return shares.unflatten(-1, window.kernel)
