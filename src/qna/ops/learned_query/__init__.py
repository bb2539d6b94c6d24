"""Learned-query attention: windows that overlap, attended with a few queries that all windows share."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from qna._core.backends import Backend, select
from qna.ops._shared.row import OpRow
from qna.ops.learned_query import cpu, cuda, reference, triton
from qna.ops.learned_query.cases import CASES
from qna.ops.learned_query.flops import flops_of
from qna.ops.learned_query.inputs import NAME, Inputs, WindowArguments

__all__ = ["ROW", "learned_query_attention", "packed_learned_query_attention"]

# fastest first. "cuda" has not run on a card yet: until rows of one say where it is faster, it stands behind
# "triton", so that None takes it only where that cannot run
_BACKENDS = (triton.BACKEND, cuda.BACKEND, cpu.BACKEND, Backend("reference", reference.attend))


def learned_query_attention(
    scores: Tensor,
    value: Tensor,
    bias: Tensor,
    weight: Tensor | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = "same",
    dilation: int | Sequence[int] = 1,
    factor: int | Sequence[int] = 1,
    backend: str | None = None,
) -> Tensor:
    """Attend overlapping windows with learned queries (Arar, Shamir, Bermano, CVPR 2022).

    For the window at position `i`, head `h`, queries `l` and taps `t` over map positions `j`::

        out[i,h] = sum_l ( sum_t weight[t,l,h] e^(scores[j,l,h] + bias[t,l,h]) value[j,h] )
                       / ( sum_t               e^(scores[j,l,h] + bias[t,l,h])            )

    With a `factor` above 1 a window has that many outputs per axis, its sub-pixels. They share the values,
    and each has L / prod(factor) queries of its own: the first group of queries is the first sub-pixel's, the
    last axis fastest. The output of the window at `i` for the sub-pixel `r` stands at ``i * factor + r``.

    Taps outside the map count in neither sum; a window that lies outside altogether gives 0. The CPU kernels
    are exact for any finite scores and biases. The reference adds the two in one number of its precision:
    their sum must be finite, and what it rounds off is lost. A score of -inf masks its position. Half
    precision is summed in fp32; on a GPU shares of bf16 maps, and their products with values, are rounded to
    bf16 as matrix units take them.

    Args:
        scores: (B, *space, L, h), one score per position, query and head; one to three space axes.
        value: (B, *space, h, d), of the same dtype.
        bias: (*kernel, L, h), relative position bias, inside the softmax.
        weight: (*kernel, L, h), query weights, in the numerator only; None for 1.
        stride: positions between windows; an integer or one per axis.
        padding: "same" pads ``dilation * (kernel - 1)`` per axis, the smaller half first, and gives
            ``ceil(size / stride)`` windows; an integer (or one per axis) pads both sides.
        dilation: positions between taps; an integer or one per axis.
        factor: outputs of a window along each axis; an integer or one per axis, whose product divides L.
        backend: "cpu", "reference", or another that `qna doctor` lists; None takes the fastest that can run.

    Returns:
        (B, *space', h, d) in the dtype of `value`; `factor` times as many outputs as windows along each axis.

    Raises:
        InvalidInput: shapes, dtypes, devices or window arguments that do not fit.
        NoBackend: the named backend cannot run these inputs; the text lists every reason.
    """
    geometry = WindowArguments(stride=stride, padding=padding, dilation=dilation, factor=factor)
    inputs = Inputs.apart(scores, value, bias, weight, geometry)
    return select(NAME, _BACKENDS, inputs, backend).run(*inputs.arguments)


def packed_learned_query_attention(
    packed: Tensor,
    bias: Tensor,
    weight: Tensor | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = "same",
    dilation: int | Sequence[int] = 1,
    factor: int | Sequence[int] = 1,
    backend: str | None = None,
) -> Tensor:
    """`learned_query_attention` of scores and values in one map, as one matrix product makes them.

    The gradient of the map is written into one buffer as well, which saves the copies that would put the
    gradients of two views together. All other arguments, and the errors, are those of the op.

    Args:
        packed: (B, *space, d + L, h), the d channels of the values, then the scores of the L queries.
        bias: (*kernel, L, h), which tells L.
        weight: (*kernel, L, h) or None.
        stride: as there.
        padding: as there.
        dilation: as there.
        factor: as there.
        backend: as there.

    Returns:
        (B, *space', h, d), in memory with the heads fastest.
    """
    geometry = WindowArguments(stride=stride, padding=padding, dilation=dilation, factor=factor)
    inputs = Inputs.packed(packed, bias, weight, geometry)
    return select(NAME, _BACKENDS, inputs, backend).run(*inputs.arguments)


ROW = OpRow(NAME, learned_query_attention, _BACKENDS, CASES, flops_of, tune=triton.tune_tiles)
