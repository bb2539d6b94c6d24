"""Shapes that tests and benchmarks share, one line each with the reason it is there."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class NeighborhoodCase:
    """Sizes of one call of the op, its optional tensors, and the window arguments that go with them."""

    name: str
    space: tuple[int, ...]
    kernel: tuple[int, ...]
    batch: int = 2
    heads: int = 3
    head_dim: int = 5
    value_dim: int | None = None  # None for that of the queries
    biased: bool = False
    extra: int = 0  # keys outside the map
    masked: bool = False
    options: dict = field(default_factory=dict)  # stride, dilation, is_causal, border

    def make(
        self, dtype: torch.dtype = torch.float32, device: str = "cpu", *, seed: int = 0
    ) -> dict[str, Tensor]:
        """Random tensors by the op's argument names; drawn on the CPU in fp64, so equal on every device."""
        g = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype).to(device)

        batch, space, heads = self.batch, self.space, self.heads
        made = {
            "q": draw(batch, *space, heads, self.head_dim),
            "k": draw(batch, *space, heads, self.head_dim),
            "v": draw(batch, *space, heads, self.values),
        }
        if self.biased:
            made["bias"] = draw(heads, *(2 * k - 1 for k in self.kernel))
        if self.extra:
            made["extra_keys"] = draw(batch, self.extra, heads, self.head_dim)
            made["extra_values"] = draw(batch, self.extra, heads, self.values)
        if self.masked:
            made["key_mask"] = (torch.rand(batch, *space, generator=g) < 0.7).to(device)
        return made

    def grown(self, size: int, kernel: int) -> NeighborhoodCase:
        """The same with a map of `size` positions per axis and windows of `kernel` taps per axis."""
        axes = len(self.space)
        return replace(self, space=(size,) * axes, kernel=(kernel,) * axes)

    @property
    def window(self) -> dict[str, Any]:
        """Arguments of the op that are no tensors."""
        return {"kernel_size": self.kernel, **self.options}

    @property
    def values(self) -> int:
        """Channels of a head's values."""
        return self.head_dim if self.value_dim is None else self.value_dim

    @property
    def terms(self) -> int:
        """Products of which a number of the output is the sum."""
        return (math.prod(self.kernel) + self.extra) * self.head_dim


CASES = (
    NeighborhoodCase("1d", (9,), (3,)),
    NeighborhoodCase("1d-whole-map", (6,), (6,), biased=True),
    NeighborhoodCase("1d-causal-strided", (11,), (4,), biased=True, options={"is_causal": True, "stride": 3}),
    NeighborhoodCase("1d-long-window", (150,), (129,), heads=1, head_dim=8),
    NeighborhoodCase("1d-many-extra-keys", (7,), (3,), extra=40, masked=True,
                     options={"is_causal": True}),
    # plain: what benchmarks enlarge
    NeighborhoodCase("2d-plain", (7, 9), (3, 3), heads=8, head_dim=8),
    NeighborhoodCase("2d-3x3", (7, 9), (3, 3), biased=True, extra=2, masked=True),
    NeighborhoodCase("2d-one-position", (1, 1), (1, 1), biased=True),
    NeighborhoodCase("2d-even", (8, 7), (4, 2), biased=True),
    NeighborhoodCase("2d-strided-short-group", (14, 9), (4, 5), biased=True, options={"stride": (4, 2)}),
    NeighborhoodCase("2d-dilated-unequal-groups", (15, 11), (5, 3), biased=True,
                     options={"dilation": (3, 2)}),
    NeighborhoodCase("2d-causal-rows", (7, 9), (4, 3), biased=True, masked=True,
                     options={"is_causal": (True, False)}),
    NeighborhoodCase("2d-all-at-once", (14, 13), (4, 3), extra=3, masked=True, biased=True,
                     options={"stride": (2, 3), "dilation": (2, 3), "is_causal": (False, True)}),
    NeighborhoodCase("2d-masked-border", (6, 7), (5, 4), biased=True, options={"border": "mask"}),
    NeighborhoodCase("2d-masked-border-larger-than-map", (2, 5), (9, 7), biased=True,
                     options={"border": "mask", "dilation": (1, 2), "stride": (2, 1)}),
    NeighborhoodCase("2d-zero-border", (6, 7), (5, 4), biased=True, masked=True, options={"border": "zero"}),
    NeighborhoodCase("2d-zero-border-dilated", (7, 9), (3, 5), biased=True,
                     options={"border": "zero", "dilation": (2, 3), "stride": (3, 1),
                              "is_causal": (True, False)}),
    NeighborhoodCase("2d-wide-heads", (9, 10), (7, 7), heads=2, head_dim=32, biased=True),
    NeighborhoodCase("2d-narrower-values", (7, 6), (3, 5), head_dim=17, value_dim=4, biased=True, extra=2),
    NeighborhoodCase("2d-wider-values", (7, 6), (3, 5), heads=1, head_dim=3, value_dim=70),
    NeighborhoodCase("2d-one-channel", (7, 7), (3, 3), heads=1, head_dim=1, biased=True),
    NeighborhoodCase("3d", (4, 5, 6), (3, 2, 5), heads=2, head_dim=4, biased=True, masked=True),
    NeighborhoodCase("3d-video", (5, 4, 6), (3, 2, 2), heads=2, head_dim=4, biased=True, extra=3,
                     options={"is_causal": (True, False, False), "dilation": (1, 2, 3), "stride": (1, 2, 1)}),
)  # fmt: skip

BY_NAME = {case.name: case for case in CASES}
