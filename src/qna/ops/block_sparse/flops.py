"""Arithmetic of the op: two FLOPs per multiply-add, of the blocks that are kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from qna.ops.block_sparse.inputs import blocks


def pairs(kept: Tensor, length: int, block: int) -> int:
    """Pairs of a query and a key that it sees; of a tensor without values, those of all blocks."""
    if isinstance(kept, FakeTensor) or kept.is_meta:
        return kept.shape[0] * kept.shape[1] * (length * (length + 1) // 2)
    sizes = torch.full((blocks(length, block),), block, device=kept.device)
    sizes[-1] = length - (len(sizes) - 1) * block
    met = torch.outer(sizes, sizes).tril(-1) + torch.diag(sizes * (sizes + 1) // 2)
    return int((kept * met).sum())


def flops(kept: Tensor, length: int, block: int, dim: int, value_dim: int) -> tuple[int, int]:
    """Of a forward and of a backward.

    Per pair the score and the value; backward the score again, the gradient of its share, and those of query,
    key and value.
    """
    seen = pairs(kept, length, block)
    return 2 * seen * (dim + value_dim), 2 * seen * (3 * dim + 2 * value_dim)


def flops_of(case: Any) -> tuple[int, int]:
    """FLOPs of a forward and of a backward of a case."""
    kept = case.make()["kept"]
    return flops(kept, case.length, case.block, case.head_dim, case.values)
