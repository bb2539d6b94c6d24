"""Which blocks of keys are attended, as something that chooses, apart from what attends them."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from qna.ops.block_sparse import block_sparse_attention


class ChoosesBlocks(Protocol):
    """A selector: of queries and keys, the blocks that are worth attending."""

    @property
    def block(self) -> int:
        """Positions of a block."""
        ...

    def choose(self, query: Tensor, key: Tensor) -> Tensor:
        """The blocks of keys that each block of queries keeps.

        Args:
            query: (B, h, N, d), turned to their positions.
            key: (B, h', N, d), h' a divisor of h.

        Returns:
            bool (B, h, R, R), R the blocks of N positions; above the diagonal it does not count.
        """
        ...


def attend_chosen(query: Tensor, key: Tensor, value: Tensor, selector: ChoosesBlocks) -> Tensor:
    """Causal attention over the blocks that `selector` keeps: (B, h, N, d) -> (B, h, N, e)."""
    return block_sparse_attention(query, key, value, selector.choose(query, key), block=selector.block)
