"""GELU on the CPU: the C++ kernels as `torch.library` ops, with their limits."""

from __future__ import annotations

import torch
from torch import Tensor

from qna._core.backends import Backend
from qna.ops._shared.compiled import STORAGE, load
from qna.ops._shared.kernel_op import KernelOp

_native, missing = load(__package__)
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Gelu(KernelOp):
    """Kernels get x, an output, None, and whether the form is that by tanh."""

    name = "gelu"
    function = "qna.ops.gelu"
    maps = ("x",)
    options = ("bool tanh",)

    def empty_output(self, x: Tensor, tanh: bool) -> Tensor:
        """As `x`."""
        return torch.empty_like(x)

    def forward_flops(self, x: Tensor, tanh: bool) -> int:
        """As `flops.flops_of`."""
        return 0

    def backward_flops(self, x: Tensor, tanh: bool) -> int:
        """As `flops.flops_of`."""
        return 0


def forward(x: Tensor, out: Tensor, kept: None, tanh: bool) -> None:
    """Fill `out`."""
    x = _laid_as(out, x)
    _native.forward(
        STORAGE[x.dtype], int(tanh), torch.get_num_threads(), x.numel(), x.data_ptr(), out.data_ptr()
    )


def backward(
    grad: Tensor, x: Tensor, kept: None, grads: tuple[Tensor], tanh: bool, wanted: bool
) -> tuple[()]:
    """Fill the gradient of `x`."""
    (out,) = grads
    grad, x = _laid_as(out, grad), _laid_as(out, x)
    _native.backward(
        STORAGE[x.dtype],
        int(tanh),
        torch.get_num_threads(),
        x.numel(),
        grad.data_ptr(),
        x.data_ptr(),
        out.data_ptr(),
    )
    return ()


def _laid_as(out: Tensor, t: Tensor) -> Tensor:
    """`t` with its numbers in the order of `out`, which is dense; a copy only where they are not."""
    return t if t.stride() == out.stride() else torch.empty_like(out).copy_(t)


BACKEND = Backend(
    "cpu",
    Gelu().register("cpu", forward, backward, device="cpu", keeps=False),
    device="cpu",
    dtypes=_DTYPES,
    opaque=True,
    missing=missing,
)
