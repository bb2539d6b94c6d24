"""What the op is given: checked once, for all backends."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from qna._core import checks
from qna._core.backends import short
from qna._core.errors import InvalidInput

NAME = "qna.ops.block_sparse_attention"
# what torch multiplies and adds on every device
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class BlockSparseInputs:
    """Checked inputs of the op, as its backends judge them. Made by `checked`.

    Attributes:
        q: (B, h, N, d).
        k: (B, h', N, d), h' a divisor of h.
        v: (B, h', N, e).
        kept: bool (B, h, R, R), R the blocks of N positions.
        scale: what products of queries and keys are multiplied with.
        block: positions of a block.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    kept: Tensor
    scale: float
    block: int

    @classmethod
    def checked(
        cls, q: Tensor, k: Tensor, v: Tensor, kept: Tensor, *, block: int, scale: float | None
    ) -> BlockSparseInputs:
        """Of the arguments of the op.

        Raises:
            InvalidInput: shapes, dtypes, devices or numbers that do not fit.
        """
        check_heads(NAME, q=q, k=k, v=v)
        checks.positive(NAME, block=block)
        rows = blocks(q.shape[-2], block)
        expected = (*q.shape[:2], rows, rows)
        if not isinstance(kept, Tensor) or kept.dtype != torch.bool or kept.shape != expected:
            told = (
                f"{short(kept.dtype)} {tuple(kept.shape)}"
                if isinstance(kept, Tensor)
                else type(kept).__name__
            )
            raise InvalidInput(
                f"{NAME}: kept must be a bool tensor (B, heads, blocks, blocks) = {expected}, for "
                f"{q.shape[-2]} positions in blocks of {block}, got {told}"
            )
        if kept.device != q.device:
            raise InvalidInput(
                f"{NAME}: all tensors must be on one device, got kept on {kept.device} beside {q.device}"
            )
        return cls(q, k, v, kept, scale_of(scale, q), block)

    @property
    def arguments(self) -> tuple:
        """As backends run them: all attributes in their order."""
        return (*self.tensors, self.scale, self.block)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of them."""
        return (self.q, self.k, self.v, self.kept)

    @property
    def device(self) -> torch.device:
        """Where all tensors are."""
        return self.q.device

    @property
    def dtype(self) -> torch.dtype:
        """Of queries, keys and values."""
        return self.q.dtype

    def describe(self) -> str:
        """Shapes, blocks, dtype and device in one line."""
        return (
            f"q {tuple(self.q.shape)}, k {tuple(self.k.shape)}, v {tuple(self.v.shape)}, blocks of "
            f"{self.block}, dtype {short(self.dtype)}, device {self.device}"
        )


def blocks(length: int, block: int) -> int:
    """Blocks that cover so many positions."""
    return (length + block - 1) // block


def check_heads(owner: str, **maps: Tensor) -> None:
    """Queries (B, h, N, d) first, then keys and maybe values (B, h', N, ...), of one dtype and device.

    Raises:
        InvalidInput: with the shapes, dtypes or devices.
    """
    for name, t in maps.items():
        if not isinstance(t, Tensor) or t.ndim != 4 or t.dtype not in _DTYPES:
            names = ", ".join(map(short, _DTYPES))
            told = f"{short(t.dtype)} {tuple(t.shape)}" if isinstance(t, Tensor) else type(t).__name__
            raise InvalidInput(
                f"{owner}: {name} must be (B, heads, N, channels), one of ({names}), got {told}"
            )
    q, k, *values = maps.values()
    shapes = ", ".join(f"{name} {tuple(t.shape)}" for name, t in maps.items())
    if any(0 in t.shape[1:] for t in maps.values()):
        raise InvalidInput(f"{owner}: only the batch may be empty, got {shapes}")
    if (
        (q.shape[0], *q.shape[2:]) != (k.shape[0], *k.shape[2:])
        or any(v.shape[:-1] != k.shape[:-1] for v in values)
        or q.shape[1] % k.shape[1]
    ):
        raise InvalidInput(
            f"{owner}: {', '.join(maps)} must agree in batch and positions, q and k in channels, and the "
            f"heads of k must divide those of q, got {shapes}"
        )
    for what in ("dtype", "device"):
        if len({getattr(t, what) for t in maps.values()}) > 1:
            told = ", ".join(f"{name} {getattr(t, what)}" for name, t in maps.items())
            raise InvalidInput(f"{owner}: {', '.join(maps)} must have one {what}, got {told}")


def scale_of(scale: float | None, q: Tensor) -> float:
    """The scale that is given, or that of `q`."""
    if scale is None:
        return q.shape[-1] ** -0.5
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not math.isfinite(scale):
        raise InvalidInput(f"{NAME}: scale must be a finite number or None, got {scale!r}")
    return float(scale)
