"""The op's kernels as `torch.library` ops: what they take, and what is allocated for them."""

from __future__ import annotations

import torch
from torch import Tensor

from qna.ops._shared.kernel_op import KernelOp
from qna.ops.block_sparse.flops import flops
from qna.ops.block_sparse.inputs import NAME


class BlockSparse(KernelOp):
    """Kernels get (q, k, v, kept), output, log-sum-exp, scale and block."""

    name = "block_sparse"
    function = NAME
    maps = ("q", "k", "v")
    # `kept` is what forwards keep for backwards
    constants = ("kept_blocks",)
    options = ("float scale", "SymInt block")
    keeps_output = True

    def empty_output(self, q: Tensor, k: Tensor, v: Tensor, *_: object) -> Tensor:
        """(B, h, N, e), with heads after positions in memory: what joins heads needs no copy."""
        return v.new_empty(q.shape[0], q.shape[2], q.shape[1], v.shape[3]).transpose(1, 2)

    def empty_kept(self, output: Tensor, *_: object) -> Tensor:
        """The log-sum-exp, (B, h, N), at least fp32."""
        return output.new_empty(output.shape[:-1], dtype=torch.promote_types(output.dtype, torch.float32))

    def forward_flops(self, *arguments: object) -> int:
        """As `flops.flops`."""
        return self._flops(*arguments)[0]

    def backward_flops(self, *arguments: object) -> int:
        """As `flops.flops`."""
        return self._flops(*arguments)[1]

    def _flops(self, *arguments) -> tuple[int, int]:
        q, _, v, kept, _, block = arguments
        return flops(kept, q.shape[-2], block, q.shape[-1], v.shape[-1])


OP = BlockSparse()
