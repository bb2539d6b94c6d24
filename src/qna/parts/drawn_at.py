"""Numbers that are drawn for a place: any length of them begins as every longer one does."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qna.parts.open_size import is_open

# numbers that are mixed at once: words and angles of each take some ten times its room
_AT_ONCE = 2**18
_BITS = 0xFFFFFFFF


def normal_at(places: Tensor, count: int, key: int, like: Tensor) -> Tensor:
    """Independent numbers of N(0, 1), a function of place, channel and key alone.

    Two words of 32 bits are mixed from the three (Wellons, "lowbias32") and become a number by Box and
    Muller. Whole numbers alone are mixed, so that every device has the same words, and a graph needs no
    generator.

    Args:
        places: int64 (n,), at least 0 and below 2^32.
        count: channels.
        key: another one draws other numbers, as `qna._core.seeds.derive_seed` gives.
        like: whose device and dtype the numbers have.

    Returns:
        (n, count).
    """
    n = places.shape[0]
    if not is_open(n) and not torch.compiler.is_compiling() and n > (part := max(1, _AT_ONCE // count)):
        return torch.cat([normal_at(of, count, key, like) for of in places.split(part)])
    exact = torch.float32 if like.device.type == "mps" else torch.float64
    rows = _mixed(_mixed(places.to(like.device) ^ (key & _BITS)) ^ ((key >> 32) & _BITS))[:, None]
    columns = 2 * torch.arange(count, device=like.device)
    first, second = ((_mixed((rows + columns + word) & _BITS).to(exact) + 0.5) / 2.0**32 for word in (0, 1))
    return ((-2 * first.log()).sqrt() * (2 * math.pi * second).cos()).to(like.dtype)


def _mixed(x: Tensor) -> Tensor:
    x = _times(x ^ (x >> 16), 0x7FEB352D)
    x = _times(x ^ (x >> 15), 0x846CA68B)
    return x ^ (x >> 16)


def _times(x: Tensor, factor: int) -> Tensor:
    """Modulo 2^32, in two parts that 63 bits hold."""
    high = ((x * (factor >> 16)) & 0xFFFF) << 16
    return (x * (factor & 0xFFFF) + high) & _BITS
