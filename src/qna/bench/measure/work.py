"""What is timed, apart from who times it: the contract, and a contender's call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from qna.bench.measure import gate
from qna.bench.measure.contender import BACKWARD, Contender


class Work(Protocol):
    """One thing to run in a mode, with the check that comes before."""

    extra: dict[str, Any]
    device: torch.device
    # whether its calls are so short that on a GPU they are replayed from a recording
    recordable: bool

    def verify(self, mode: str) -> None:
        """Raise `WrongOutput` if it computes something else than it shall."""
        ...

    def call(self, mode: str) -> Callable[[], object]:
        """What one call of the mode is."""
        ...


class ContenderWork:
    """A contender's forward, or its forward and the gradients of all leaves."""

    recordable = True

    def __init__(self, contender: Contender):
        self.contender = contender
        self.extra = contender.extra
        self.device = next(iter(contender.leaves.values())).device
        self._gradient: Tensor | None = None

    def verify(self, mode: str) -> None:
        """Hold the contender to its definition."""
        out = gate.verify(self.contender, mode)
        if mode == BACKWARD:
            self._gradient = _gradient_of(out)

    def call(self, mode: str) -> Callable[[], object]:
        """The forward without gradients, or with the gradients of all leaves."""
        if mode != BACKWARD:
            return torch.no_grad()(self.contender.forward)
        leaves = list(self.contender.leaves.values())

        def run() -> object:
            out = self.contender.forward()
            if self._gradient is None:  # not verified before: the first call settles it
                self._gradient = _gradient_of(out)
            return torch.autograd.grad(out, leaves, self._gradient)

        return run


def _gradient_of(out: Tensor) -> Tensor:
    """A gradient in the memory layout of the output, as the layer behind would give it."""
    return torch.empty_like(out.detach()).normal_(generator=torch.Generator(out.device).manual_seed(3))
