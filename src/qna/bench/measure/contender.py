"""What a peer gives to be measured: the sizes it is asked for, and one callable with its own definition."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from qna._core.errors import InvalidInput, check_choice

FORWARD, BACKWARD = "forward", "forward+backward"
MODES = (FORWARD, BACKWARD)
DTYPES = ("float32", "float64", "bfloat16", "float16")

# leaves in fp64 and positions (P, 3) of (image, row, column) -> the outputs there, (P, ...) in fp64
Definition = Callable[[Mapping[str, Tensor], Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Sizes of one comparison: a map (batch, height, width, dim) and a square window.

    `heads` and `queries` are those of learned-query attention; peers with a query per position use heads of
    32 channels, which is what their papers use and what suits matrix products.
    """

    batch: int
    height: int
    width: int
    dim: int
    window: int
    heads: int
    queries: int = 2
    dtype: str = "float32"
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_choice("dtype", self.dtype, DTYPES)
        sizes = {k: v for k, v in asdict(self).items() if isinstance(v, int)}
        if min(sizes.values()) < 1:
            raise InvalidInput(f"sizes must be at least 1, got {sizes}")
        if self.dim % self.heads:
            raise InvalidInput(f"heads must divide dim, got {self.heads} and {self.dim}")

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype of all tensors."""
        return getattr(torch, self.dtype)

    @property
    def space(self) -> tuple[int, int]:
        """Height and width of the map."""
        return self.height, self.width

    @property
    def kernel(self) -> tuple[int, int]:
        """Taps along both axes of a window that stays in the map: on a map of one row it is a row too."""
        return (1 if self.height == 1 else self.window, self.window)

    @property
    def attention_heads(self) -> int:
        """Heads of the peers that have a query per position."""
        return self.dim // 32 if self.dim % 32 == 0 else self.heads

    def itemsize(self) -> int:
        """Bytes of one element."""
        return self.torch_dtype.itemsize


@dataclass
class Contender:
    """One peer at one setting, ready to run.

    Attributes:
        forward: computes the output (batch, height, width, ...) from the leaves.
        leaves: every tensor that gets a gradient, by name.
        definition: what it shall compute, written independently of it.
        terms: number of products behind one output, from which rounding grows.
        extra: how it was configured, for the row.
    """

    forward: Callable[[], Tensor]
    leaves: dict[str, Tensor]
    definition: Definition
    terms: int
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """An operator to compare with.

    Attributes:
        name: as in `--peers`.
        about: one line for tables and legends.
        build: makes the contender of a setting at level "op" (projections taken out) or "layer".
        declines: why it cannot run a setting at a level in a mode, or None.
        of_all: whether "all" means it too; one that only selects among another's parts is asked by name.
        op: the op of this library whose form it is, which another op's comparison leaves out of "all".
    """

    name: str
    about: str
    build: Callable[[Setting, str], Contender]
    declines: Callable[[Setting, str, str], str | None] = lambda setting, level, mode: None
    of_all: bool = True
    op: str | None = None


class Draw:
    """Seeded normal leaves in the dtype and on the device of a setting."""

    def __init__(self, setting: Setting):
        self.setting = setting
        self.generator = torch.Generator(setting.device).manual_seed(0)

    def __call__(self, *shape: int, scale: float = 1.0) -> Tensor:
        """A leaf of N(0, scale^2), drawn in fp32 on the device: a CPU takes seconds for a large map."""
        t = torch.randn(*shape, generator=self.generator, device=self.setting.device) * scale
        return t.to(self.setting.torch_dtype).requires_grad_()

    def map(self, channels: int | None = None) -> Tensor:
        """A map (batch, height, width, channels)."""
        s = self.setting
        return self(s.batch, s.height, s.width, s.dim if channels is None else channels)

    def projection(self, out: int, into: int) -> Tensor:
        """A weight (out, into) that keeps the variance."""
        return self(out, into, scale=1 / math.sqrt(into))
