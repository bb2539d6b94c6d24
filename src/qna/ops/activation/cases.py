"""Shapes that tests and benchmarks share."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class GeluCase:
    """A map, and the form."""

    name: str
    space: tuple[int, ...]
    batch: int = 2
    channels: int = 5
    window: dict = field(default_factory=dict)  # the form, which is all there is beside the map

    def make(
        self, dtype: torch.dtype = torch.float32, device: str = "cpu", *, seed: int = 0
    ) -> dict[str, Tensor | None]:
        """Random numbers; drawn on the CPU in fp64, so equal on every device."""
        g = torch.Generator().manual_seed(seed)
        x = torch.randn(self.batch, *self.space, self.channels, generator=g, dtype=torch.float64)
        return {"x": (3 * x).to(dtype).to(device)}

    def grown(self, size: int, kernel: int) -> GeluCase:
        """The same with a map of `size` positions per axis; there are no windows that could grow."""
        return replace(self, space=(size,) * len(self.space))

    @property
    def terms(self) -> int:
        """A number of the output is a product of two."""
        return 1


CASES = (
    GeluCase("2d-3x3", (7, 15), window={"approximate": "tanh"}),
    GeluCase("1d", (9,), window={"approximate": "none"}),
    GeluCase("one-number", (), batch=1, channels=1, window={"approximate": "tanh"}),
    GeluCase("2d-erf", (33, 70), channels=64, window={"approximate": "none"}),
    GeluCase("2d-tanh", (33, 70), channels=64, window={"approximate": "tanh"}),
)
