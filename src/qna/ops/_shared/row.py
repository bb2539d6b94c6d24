"""An op as one row: what `qna doctor`, the benchmarks and the contract test know of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from qna._core.backends import Backend


class OpCase(Protocol):
    """Sizes of one call of an op, and the arguments that go with them."""

    @property
    def name(self) -> str:
        """What tests and tables call it."""
        ...

    @property
    def terms(self) -> int:
        """Products of which a number of the output is the sum."""
        ...

    @property
    def window(self) -> Mapping[str, Any]:
        """Arguments that are no tensors."""
        ...

    def make(
        self, dtype: torch.dtype = ..., device: str = ..., *, seed: int = ...
    ) -> Mapping[str, Tensor | None]:
        """Random tensors by the function's argument names, equal on every device."""
        ...

    def grown(self, size: int, kernel: int) -> OpCase:
        """The same with a map of `size` positions per axis and windows of `kernel` taps per axis."""
        ...


@dataclass(frozen=True)
class OpRow:
    """One op.

    Attributes:
        name: of the public function, for texts.
        function: called with a case's tensors and arguments, and ``backend=``.
        backends: fastest first, the reference last.
        cases: shapes that tests and benchmarks share.
        flops: FLOPs of a forward and of a backward of a case.
        tune: (case, dtype, path, progress) measures a case on the card at hand and puts the fastest tiles
            into the file of tiles at `path`; None where there is nothing to tune.
    """

    name: str
    function: Callable[..., Tensor]
    backends: Sequence[Backend]
    cases: Sequence[OpCase]
    flops: Callable[[Any], tuple[int, int]]
    tune: Callable[..., None] | None = None

    @property
    def reference(self) -> Backend:
        """Plain torch, which every other backend is held to."""
        return self.backends[-1]

    def backend(self, name: str) -> Backend:
        """The one of this name."""
        return next(b for b in self.backends if b.name == name)
