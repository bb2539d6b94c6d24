"""Shapes that tests and benchmarks share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from qna.ops.block_sparse.inputs import blocks


@dataclass(frozen=True)
class BlockSparseCase:
    """A sequence, heads, and how many blocks before its own a query keeps."""

    name: str
    length: int
    block: int
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    value_dim: int | None = None  # None for that of the queries
    batch: int = 2
    most: int = 3  # blocks that a row keeps, its own among them
    turned: bool = False  # heads after positions in memory, as a projection leaves them
    spared: bool = False  # some rows keep nothing at all

    def make(
        self, dtype: torch.dtype = torch.float32, device: str = "cpu", *, seed: int = 0
    ) -> dict[str, Tensor | None]:
        """Random tensors by the op's argument names; drawn on the CPU in fp64, so equal on every device."""
        g = torch.Generator().manual_seed(seed)

        def draw(heads: int, channels: int) -> Tensor:
            sizes = (self.length, heads) if self.turned else (heads, self.length)
            t = torch.randn(self.batch, *sizes, channels, generator=g, dtype=torch.float64)
            t = t.to(dtype).to(device)
            return t.transpose(1, 2) if self.turned else t

        rows = blocks(self.length, self.block)
        likes = torch.rand(self.batch, self.heads, rows, rows, generator=g).tril()
        least = likes.topk(min(self.most, rows), -1).values[..., -1:]
        # entries above the diagonal do not count: some are True
        kept = (likes >= least) & (likes > 0) | torch.eye(rows, dtype=torch.bool)
        kept |= (torch.rand(kept.shape, generator=g) < 0.1) & ~torch.ones(rows, rows, dtype=torch.bool).tril()
        if self.spared:
            kept &= torch.rand(self.batch, self.heads, rows, 1, generator=g) < 0.5
        return {
            "q": draw(self.heads, self.head_dim),
            "k": draw(self.kv_heads, self.head_dim),
            "v": draw(self.kv_heads, self.values),
            "kept": kept.to(device),
        }

    def grown(self, size: int, kernel: int) -> BlockSparseCase:
        """An eighth of the positions of a map of `size` per axis, each over `kernel` blocks of 128."""
        return replace(self, length=size * size // 8, block=128, most=kernel)

    @property
    def space(self) -> tuple[int, ...]:
        """Positions."""
        return (self.length,)

    @property
    def window(self) -> dict[str, Any]:
        """Arguments of the op that are no tensors."""
        return {"block": self.block}

    @property
    def values(self) -> int:
        """Channels of a head's values."""
        return self.head_dim if self.value_dim is None else self.value_dim

    @property
    def terms(self) -> int:
        """Products of which a number of the output is the sum, or of a gradient of keys, that heads share."""
        return self.length * self.head_dim * self.heads // self.kv_heads


CASES = (
    BlockSparseCase("1d", 37, 8),
    BlockSparseCase("one-position", 1, 8),
    BlockSparseCase("blocks-of-one", 13, 1),
    BlockSparseCase("one-block", 9, 16),
    BlockSparseCase("odd-block", 61, 7, heads=6, kv_heads=3, head_dim=24),
    BlockSparseCase("nothing-kept", 50, 8, spared=True),
    BlockSparseCase("turned", 150, 32, head_dim=32, turned=True),
    BlockSparseCase("a-head-each", 200, 64, heads=2, kv_heads=2, head_dim=64),
    BlockSparseCase("one-for-all", 300, 128, heads=3, kv_heads=1, head_dim=64, batch=1),
    BlockSparseCase("long-block", 700, 300, heads=2, kv_heads=1, head_dim=128, batch=1),
    BlockSparseCase("wider-values", 130, 48, head_dim=17, value_dim=33),
    BlockSparseCase("one-channel", 40, 16, head_dim=1, value_dim=1),
)
