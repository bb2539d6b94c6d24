"""Shapes that tests and benchmarks share, one line each with the reason it is there."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """Sizes of one call of the op, and the window arguments that go with them."""

    name: str
    space: tuple[int, ...]
    kernel: tuple[int, ...]
    batch: int = 2
    queries: int = 2
    heads: int = 3
    head_dim: int = 5
    window: dict = field(default_factory=dict)  # stride, padding, dilation, factor

    def make(
        self, dtype: torch.dtype = torch.float32, device: str = "cpu", *, seed: int = 0, weighted: bool = True
    ) -> dict[str, Tensor | None]:
        """Random inputs by the op's argument names; drawn on the CPU in fp64, so equal on every device."""
        g = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype).to(device)

        l_h = (self.queries, self.heads)
        return {
            "scores": draw(self.batch, *self.space, *l_h),
            "value": draw(self.batch, *self.space, self.heads, self.head_dim),
            "bias": draw(*self.kernel, *l_h),
            "weight": draw(*self.kernel, *l_h) if weighted else None,
        }

    def grown(self, size: int, kernel: int) -> Case:
        """The same with a map of `size` positions per axis and windows of `kernel` taps per axis."""
        axes = len(self.space)
        return replace(self, space=(size,) * axes, kernel=(kernel,) * axes)

    @property
    def taps(self) -> int:
        """Number of taps in a window."""
        return int(torch.tensor(self.kernel).prod())

    @property
    def terms(self) -> int:
        """Products of which a number of the output is the sum."""
        return self.taps * self.head_dim * self.queries


CASES = (
    Case("1d", (9,), (3,)),
    Case("1d-even-strided", (10,), (4,), window={"stride": 3}),
    Case("2d-3x3", (7, 15), (3, 3)),
    Case("2d-one-pixel", (1, 1), (3, 3)),
    Case("2d-two-pixels", (1, 2), (5, 5)),
    Case("2d-kernel-one", (2, 7), (1, 1)),
    Case("2d-even", (7, 7), (4, 2)),
    Case("2d-larger-than-map", (2, 7), (9, 9)),
    Case("2d-stride-2", (15, 7), (3, 3), window={"stride": 2}),
    Case("2d-stride-3-rectangular", (15, 7), (5, 3), window={"stride": (3, 2)}),
    Case("2d-dilated", (15, 15), (3, 5), window={"dilation": (2, 3)}),
    Case("2d-dilated-strided-even", (7, 15), (2, 4), window={"dilation": 2, "stride": 2}),
    Case("2d-unpadded", (7, 15), (3, 5), window={"padding": 0}),
    Case("2d-windows-outside", (2, 3), (3, 3), window={"padding": 4}),
    Case("2d-one-query", (7, 7), (3, 3), queries=1, heads=8, head_dim=8),
    Case("2d-four-queries", (7, 7), (3, 3), queries=4, heads=4, head_dim=16),
    Case("2d-two-queries-d8", (15, 15), (3, 3), heads=8, head_dim=8),
    Case("2d-two-queries-d8-k7", (15, 15), (7, 7), heads=8, head_dim=8),
    Case("2d-sixteen-heads", (7, 15), (5, 5), heads=16, head_dim=4),
    Case("2d-six-heads-d16", (7, 7), (3, 3), heads=6, head_dim=16),
    Case("2d-one-channel", (7, 7), (3, 3), queries=1, heads=1, head_dim=1),
    Case("1d-upsampled-by-4-strided", (9,), (2,), queries=4, window={"stride": 2, "factor": (4,)}),
    Case("2d-upsampled", (5, 7), (3, 3), queries=4, heads=8, head_dim=4, window={"factor": (2, 2)}),
    Case("2d-upsampled-by-two-queries", (4, 7), (3, 4), queries=12, window={"factor": (3, 2), "dilation": 2}),
    Case("2d-upsampled-many-heads", (3, 70), (3, 3), queries=2, heads=19, window={"factor": (1, 2)}),
    Case("3d-upsampled", (2, 3, 2), (3, 2, 3), queries=4, heads=2, window={"factor": (2, 1, 2)}),
    Case("3d", (3, 5, 4), (3, 3, 3), heads=2, head_dim=4),
    Case("3d-strided-even", (4, 5, 2), (2, 3, 2), heads=2, head_dim=3, window={"stride": (1, 2, 2)}),
)

BY_NAME = {case.name: case for case in CASES}
