"""What the op is given: checked once, for all backends."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qna._core.backends import short
from qna._core.errors import InvalidInput, check_choice

NAME = "qna.ops.gelu"


@dataclass(frozen=True)
class GeluInputs:
    """Checked inputs of the op, as its backends judge them.

    Attributes:
        x: numbers of any shape.
        tanh: the form by tanh, not that by erf.
    """

    x: Tensor
    tanh: bool

    @classmethod
    def of(cls, x: Tensor, approximate: str) -> GeluInputs:
        """Of what a caller gives.

        Raises:
            InvalidInput: `x` is no floating-point tensor.
            UnknownName: no such form.
        """
        check_choice("approximate", approximate, ("none", "tanh"))
        if not isinstance(x, Tensor):
            raise InvalidInput(f"{NAME}: x must be a tensor, got {type(x).__name__}")
        if not x.is_floating_point():
            raise InvalidInput(f"{NAME}: x must be floating point, got {short(x.dtype)}; try x.float()")
        return cls(x, approximate == "tanh")

    @property
    def tensors(self) -> tuple[Tensor]:
        """All of them."""
        return (self.x,)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.x.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the numbers."""
        return self.x.dtype

    def describe(self) -> str:
        """Shape, dtype and device in one line."""
        return f"x {tuple(self.x.shape)}, dtype {short(self.dtype)}, device {self.device}"
