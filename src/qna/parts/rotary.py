"""Rotary positions: pairs of channels turned by angles that grow with the position."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from qna._core.errors import InvalidInput, check_choice

# which two channels of a head are a pair
HALVES, PAIRS = "halves", "pairs"
LAYOUTS = (HALVES, PAIRS)


@dataclass(frozen=True)
class Rotary:
    """RoPE (Su et al., "RoFormer", arXiv 2104.09864, section 3.2), of d channels per head::

        (a_i, b_i) -> (a_i cos t - b_i sin t, a_i sin t + b_i cos t),  t = p / scale * base^(-2 i / d)

    with i from 0 to d / 2 - 1, p the position in the sequence. The product of a query and a key then depends
    on the difference of their positions. The two layouts differ by an order of channels: weights made for one
    do not fit the other.

    Args:
        dim: channels d of a head, even; of a larger head the first d are turned.
        base: of the angles' geometric series.
        layout: "halves", where channel i pairs with i + d / 2 (GPT-NeoX, transformers' Llama), or "pairs",
            where 2 i pairs with 2 i + 1 (the paper, GPT-J, the authors' LLaMA).
        scale: by which positions are divided: linear interpolation (Chen et al., arXiv 2306.15595) to
            contexts `scale` times as long; 1 for none.

    Raises:
        InvalidInput: `dim` is odd, or `base` or `scale` is not above 0.
    """

    dim: int
    base: float = 10_000.0
    layout: str = HALVES
    scale: float = 1.0

    def __post_init__(self):
        if self.dim < 2 or self.dim % 2:
            raise InvalidInput(
                f"rotary positions turn pairs of channels: want an even number, got {self.dim}"
            )
        check_choice("layout of rotary positions", self.layout, LAYOUTS)
        for name in ("base", "scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise InvalidInput(f"rope {name} must be above 0 and finite, got {getattr(self, name)!r}")

    def turns(self, positions: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Cosines and sines at any positions (...): (..., d / 2) each, in single precision at least."""
        dtype = torch.promote_types(dtype, torch.float32)
        exponents = torch.arange(0, self.dim, 2, device=positions.device, dtype=dtype) / self.dim
        angles = positions.to(dtype)[..., None] / self.scale * self.base**-exponents
        return angles.cos(), angles.sin()

    def turns_from(self, start: int, count: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """`turns` at `count` positions from `start` on, on the device of `like`: (count, d / 2) each."""
        return self.turns(torch.arange(count, device=like.device) + start, like.dtype)

    def rotate(self, x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
        """Turn the channels of `x`.

        Args:
            x: (..., n, D), D at least d.
            turns: what `turns` gave, (..., n, d / 2) each.

        Returns:
            Of the shape and the dtype of `x`.
        """
        cos, sin = turns
        turned, rest = x[..., : self.dim], x[..., self.dim :]
        if self.layout == HALVES:
            a, b = turned.chunk(2, -1)
        else:
            a, b = turned.unflatten(-1, (-1, 2)).unbind(-1)
        # in the dtype of the angles: single precision at least
        parts = a * cos - b * sin, a * sin + b * cos
        made = torch.cat(parts, -1) if self.layout == HALVES else torch.stack(parts, -1).flatten(-2)
        return torch.cat([made.to(x.dtype), rest], -1) if rest.shape[-1] else made.to(x.dtype)
