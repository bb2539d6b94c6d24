"""Block-sparse causal attention: each block of queries attends the blocks of keys that are kept for it."""

from __future__ import annotations

from torch import Tensor

from qna._core.backends import Backend, select
from qna.ops._shared.row import OpRow
from qna.ops.block_sparse import cpu, flex, reference
from qna.ops.block_sparse.cases import CASES
from qna.ops.block_sparse.flops import flops_of
from qna.ops.block_sparse.inputs import NAME, BlockSparseInputs, blocks, check_heads

__all__ = ["ROW", "block_sparse_attention", "blocks", "check_heads"]

# fastest first
_BACKENDS = (flex.BACKEND, cpu.BACKEND, Backend("reference", reference.attend))


def block_sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kept: Tensor,
    *,
    block: int,
    scale: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """Causal attention over the blocks of keys that are kept for each block of queries.

    Positions are cut into ``R = ceil(N / block)`` blocks, the last maybe short. With b(i) the block of
    position i and g(h) = h // (heads / kv_heads), query i of head h attends in one softmax::

        { j <= i : kept[h, b(i), b(j)] },    s[i,j,h] = scale q[h,i] . k[g(h),j]

    Blocks that are not kept cost nothing: of p pairs that are seen, ``p (d + e)`` multiply-adds. On the CPU
    nothing is held beside the output but one block's numbers a thread.

    Args:
        q: (B, heads, N, d), in any strides.
        k: (B, kv_heads, N, d), of the same dtype; kv_heads divides heads.
        v: (B, kv_heads, N, e), of the same dtype.
        kept: bool (B, heads, R, R), rows of queries and columns of keys; what is above the diagonal does not
            count.
        block: positions of a block.
        scale: of the products, None for ``d ** -0.5``.
        backend: "cpu", "flex" (torch's FlexAttention, on a GPU, blocks of a multiple of 128), "reference"
            (which forms all scores, and is twice differentiable), or None for the fastest that can run.

    Returns:
        (B, heads, N, e) in the dtype of `v`: 0 where a query keeps nothing. A NaN reaches the queries of the
        blocks that keep it, and by "cpu" no others; by "reference" it is multiplied by 0.

    Raises:
        InvalidInput: shapes, dtypes, devices or numbers that do not fit.
        UnknownName: no such backend.
        NoBackend: the named backend cannot run these inputs; the text lists every reason.
    """
    inputs = BlockSparseInputs.checked(q, k, v, kept, block=block, scale=scale)
    return select(NAME, _BACKENDS, inputs, backend).run(*inputs.arguments)


ROW = OpRow(NAME, block_sparse_attention, _BACKENDS, CASES, flops_of)
