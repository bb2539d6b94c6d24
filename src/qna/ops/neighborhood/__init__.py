"""Neighbourhood attention: each query attends the window of keys around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, overload

from torch import Tensor

from qna._core.backends import Backend, select
from qna._core.errors import InvalidInput
from qna.ops._shared.row import OpRow
from qna.ops.neighborhood import cpu, halves, reference, triton
from qna.ops.neighborhood.cases import CASES
from qna.ops.neighborhood.flops import flops_of
from qna.ops.neighborhood.inputs import (
    NAME,
    HalfInputs,
    NeighborhoodInputs,
    NeighborhoodWindow,
    check_bias,
    check_key_mask,
    check_maps,
    scale_of,
    windows,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ROW", "NeighborhoodWindow", "neighborhood_attention", "neighborhood_av", "neighborhood_qk"]

# fastest first
_BACKENDS = (triton.BACKEND, cpu.BACKEND, Backend("reference", reference.attend))
_QK_BACKENDS = (halves.SCORES, Backend("reference", reference.scores))
_AV_BACKENDS = (halves.AGGREGATE, Backend("reference", reference.aggregate))


@overload
def neighborhood_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    kernel_size: int | Sequence[int],
    bias: Tensor | None = None,
    extra_keys: Tensor | None = None,
    extra_values: Tensor | None = None,
    key_mask: Tensor | None = None,
    scale: float | None = None,
    return_lse: Literal[False] = False,
    backend: str | None = None,
    **window: Unpack[NeighborhoodWindow],
) -> Tensor: ...
@overload
def neighborhood_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    kernel_size: int | Sequence[int],
    bias: Tensor | None = None,
    extra_keys: Tensor | None = None,
    extra_values: Tensor | None = None,
    key_mask: Tensor | None = None,
    scale: float | None = None,
    return_lse: Literal[True],
    backend: str | None = None,
    **window: Unpack[NeighborhoodWindow],
) -> tuple[Tensor, Tensor]: ...
def neighborhood_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    kernel_size: int | Sequence[int],
    bias: Tensor | None = None,
    extra_keys: Tensor | None = None,
    extra_values: Tensor | None = None,
    key_mask: Tensor | None = None,
    scale: float | None = None,
    return_lse: bool = False,
    backend: str | None = None,
    **window: Unpack[NeighborhoodWindow],
) -> Tensor | tuple[Tensor, Tensor]:
    """Attend the window of keys around each query (Hassani et al., arXiv 2204.07143, 2403.04690, 2504.16922).

    For query `i`, head `h` and the keys `j` of its window, which is a product of windows along the axes::

        s[i,j,h] = scale q[i,h] . k[j,h] + bias[h, (j - i) / dilation + kernel_size - 1]
        out[i,h] = sum_j e^s[i,j,h] v[j,h] / sum_j e^s[i,j,h]

    Along an axis, `m` the query, `L` the length, and all in the group of positions that are equal modulo the
    dilation, a window begins at ``m // stride * stride + stride // 2 - kernel_size // 2``: queries of one
    stride share it, and of an even window the larger half lies before the query. A causal one ends with the
    last query of its stride, and no query sees a key after itself. `border` says what a window does where it
    hangs over the map.

    Args:
        q: (B, *space, heads, d), one to three space axes: heads after space.
        k: the same.
        v: (B, *space, heads, e), of the same dtype.
        kernel_size: taps of a window; this and all of `window` but the border are one, or one per axis.
        bias: (heads, *(2 kernel_size - 1)), added to scores by the offset from the query to the key that it
            really sees, clamped or not; of any floating dtype.
        extra_keys: (B, M, heads, d), keys outside the map that every query attends too, in the same softmax;
            they have no bias.
        extra_values: (B, M, heads, e), theirs.
        key_mask: bool (B, *space), False for keys of the map that no query may attend; what they and their
            values hold, NaN included, changes nothing.
        scale: of the products, None for ``d ** -0.5``.
        return_lse: whether to return as well the logarithm of the sum of e^s.
        backend: "cpu", "reference", or another that `qna doctor` lists; None takes the fastest that can run.
        **window: ``stride=1``, queries that share a window, at most `kernel_size`; ``dilation=1``, positions
            between neighbouring keys; ``is_causal=False``; ``border="clamp"``: the window moves inwards, and
            its span must fit the map. "mask": it stays, and what lies outside is not attended. "zero": it
            stays, and what lies outside are keys and values of zeros, whose score is their bias; `key_mask`
            does not concern them.

    Returns:
        (B, *space, heads, e) in the dtype of `v`, 0 where a query attends nothing; with `return_lse` also
        (B, *space, heads), at least fp32, there -inf.

    Raises:
        InvalidInput: shapes, dtypes, devices, numbers or windows that do not fit.
        NoBackend: the named backend cannot run these inputs; the text lists every reason.
    """
    inputs = NeighborhoodInputs.checked(
        q,
        k,
        v,
        kernel_size,
        window,
        scale=scale,
        bias=bias,
        extra_keys=extra_keys,
        extra_values=extra_values,
        key_mask=key_mask,
    )
    return select(NAME, _BACKENDS, inputs, backend).run(*inputs.arguments, return_lse=return_lse)


def neighborhood_qk(
    q: Tensor,
    k: Tensor,
    *,
    kernel_size: int | Sequence[int],
    bias: Tensor | None = None,
    key_mask: Tensor | None = None,
    scale: float | None = None,
    backend: str | None = None,
    **window: Unpack[NeighborhoodWindow],
) -> Tensor:
    """The first half of `neighborhood_attention`: scores of the keys in each window.

    Args:
        q: as there.
        k: as there.
        kernel_size: as there.
        bias: as there.
        key_mask: as there.
        scale: as there; also here None is ``d ** -0.5``.
        backend: "cpu" or "reference", which is twice differentiable and runs everywhere; None takes the
            fastest that can run.
        **window: as there.

    Returns:
        (B, *space, heads, taps) in the dtype of `q`, the taps of a window in order, those of the last axis
        fastest; -inf for taps that the query does not attend.

    Raises:
        InvalidInput: as there.
        NoBackend: as there.
    """
    owner = "qna.ops.neighborhood_qk"
    check_maps(owner, q=q, k=k)
    axes = windows(owner, q, kernel_size, window)
    check_bias(owner, bias, q, axes)
    check_key_mask(owner, key_mask, k)
    inputs = HalfInputs((q, k, bias, key_mask), scale_of(owner, scale, q), axes)
    return select(owner, _QK_BACKENDS, inputs, backend).run(*inputs.arguments)


def neighborhood_av(
    weights: Tensor,
    v: Tensor,
    *,
    kernel_size: int | Sequence[int],
    backend: str | None = None,
    **window: Unpack[NeighborhoodWindow],
) -> Tensor:
    """The second half: the values in each window, summed with weights from anywhere.

    Args:
        weights: (B, *space, heads, taps), of `v`'s dtype, in the order of `neighborhood_qk`; those of taps
            that the query does not attend are ignored, whatever they are. They need not sum to 1.
        v: (B, *space, heads, e).
        kernel_size: as there.
        backend: as of `neighborhood_qk`.
        **window: as there.

    Returns:
        (B, *space, heads, e).

    Raises:
        InvalidInput: as there, and weights that do not fit the windows.
        NoBackend: as there.
    """
    owner = "qna.ops.neighborhood_av"
    check_maps(owner, weights=weights, v=v)
    axes = windows(owner, v, kernel_size, window)
    # a list, as compilers refuse to hand a generator to a function of C
    taps = math.prod([axis.kernel for axis in axes])
    if weights.shape[-1] != taps:
        raise InvalidInput(
            f"{owner}: weights must have one number for each of {taps} taps of kernel_size "
            f"{tuple(axis.kernel for axis in axes)}, got {tuple(weights.shape)}"
        )
    inputs = HalfInputs((weights, v), 1.0, axes)
    return select(owner, _AV_BACKENDS, inputs, backend).run(*inputs.arguments)


ROW = OpRow(NAME, neighborhood_attention, _BACKENDS, CASES, flops_of)
