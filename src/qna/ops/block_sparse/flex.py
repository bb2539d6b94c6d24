"""The op by torch's FlexAttention: its kernels skip the blocks that a block mask leaves out."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from qna._core.backends import Backend
from qna.ops.block_sparse.inputs import BlockSparseInputs

# positions of the tiles of FlexAttention's kernels: blocks must be made of whole ones
_TILE = 128


def attend(q: Tensor, k: Tensor, v: Tensor, kept: Tensor, *options: Any) -> Tensor:
    """As `reference.attend`; compiled on first use, except where torch is compiling already."""
    scale, block = options
    run: Any = flex_attention if torch.compiler.is_compiling() else _compiled()
    mask = block_mask(kept, q.shape[-2], block)
    return run(q, k, v, block_mask=mask, scale=scale, enable_gqa=q.shape[1] != k.shape[1])


def block_mask(kept: Tensor, length: int, block: int) -> BlockMask:
    """What is kept of the blocks before its own is seen whole; of its own, what is not later.

    Args:
        kept: bool (B, h, R, R); above the diagonal it does not count.
        length: positions.
        block: positions of a block.
    """
    before, own = kept.tril(-1), kept & torch.eye(kept.shape[-1], dtype=torch.bool, device=kept.device)
    return BlockMask.from_kv_blocks(
        *_listed(own), *_listed(before), BLOCK_SIZE=block, mask_mod=_not_later, seq_lengths=(length, length)
    )


def _listed(kept: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks each row keeps, and which, first: int32 (B, h, R) and (B, h, R, R)."""
    order = kept.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    return kept.sum(-1, dtype=torch.int32), order.to(torch.int32).contiguous()


def _not_later(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return query >= key


@lru_cache(maxsize=1)
def _compiled() -> Any:
    return torch.compile(flex_attention)


def _declines(inputs: BlockSparseInputs) -> list[str]:
    reasons = []
    if inputs.block % _TILE:
        reasons.append(f"block is {inputs.block}, needs a multiple of {_TILE}")
    if inputs.dtype == torch.float64:
        reasons.append("dtype is float64, which its kernels do not take")
    return reasons


def _missing() -> list[str]:
    return [] if torch.cuda.is_available() else ["torch sees no GPU"]


BACKEND = Backend("flex", attend, device="cuda", missing=_missing, declines=_declines)
