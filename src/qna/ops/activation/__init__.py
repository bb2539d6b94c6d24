"""GELU, the activation between the linear maps of a block."""

from __future__ import annotations

from torch import Tensor

from qna._core.backends import Backend, select
from qna.ops._shared.row import OpRow
from qna.ops.activation import cpu, reference
from qna.ops.activation.cases import CASES
from qna.ops.activation.flops import flops_of
from qna.ops.activation.inputs import NAME, GeluInputs

__all__ = ["ROW", "gelu"]

_BACKENDS = (cpu.BACKEND, Backend("reference", reference.gelu))


def gelu(x: Tensor, *, approximate: str = "none", backend: str | None = None) -> Tensor:
    """x P(x), for P the distribution function of the normal distribution (Hendrycks and Gimpel, 2016).

    `torch.nn.functional.gelu` at the price of a copy: on the CPU torch takes several times as long, for the
    tanh form ten times and more. Equal to it to rounding; that of minus infinity is 0, where torch gives NaN.

    Args:
        x: floating-point, of any shape.
        approximate: "none" for P(x) = (1 + erf(x / sqrt 2)) / 2, "tanh" for
            P(x) = (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2.
        backend: "cpu", "reference", or None for the fastest that can run.

    Returns:
        Of the shape, dtype and memory layout of `x`.

    Raises:
        InvalidInput: `x` is no floating-point tensor.
        UnknownName: no such form or backend.
        NoBackend: the named backend cannot run this input; the text lists every reason.
    """
    inputs = GeluInputs.of(x, approximate)
    return select(NAME, _BACKENDS, inputs, backend).run(inputs.x, inputs.tanh)


ROW = OpRow(NAME, gelu, _BACKENDS, CASES, flops_of)
