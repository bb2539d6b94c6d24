"""Learned-query attention: windows that overlap, attended with a few queries that all windows share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qna._core.backends import Backend, select
from qna._core.errors import InvalidInput
from qna.ops._shared.window import Window
from qna.ops.learned_query import cpu, reference, triton

__all__ = ["BACKENDS", "NAME", "Inputs", "learned_query_attention", "packed_learned_query_attention"]

NAME = "qna.ops.learned_query_attention"


@dataclass(frozen=True)
class Inputs:
    """Checked inputs of the op, as its backends judge them.

    Attributes:
        scores: (B, *space, L, h), or None where `value` holds both.
        value: (B, *space, h, d), or packed (B, *space, d + L, h).
        bias: (*kernel, L, h).
        weight: (*kernel, L, h), or None for 1.
        window: taps, strides and number of windows.
    """

    scores: Tensor | None
    value: Tensor
    bias: Tensor
    weight: Tensor | None
    window: Window

    @property
    def device(self) -> torch.device:
        """Where all tensors are."""
        return self.value.device

    @property
    def queries(self) -> int:
        """L, queries per head."""
        return self.bias.shape[-2]

    @property
    def head_dim(self) -> int:
        """d, channels per head."""
        return self.value.shape[-1] if self.scores is not None else self.value.shape[-2] - self.queries

    def describe(self) -> str:
        """Shapes, dtype and device in one line."""
        w = self.window
        maps = {"packed": self.value} if self.scores is None else {"scores": self.scores, "value": self.value}
        return (
            f"{_shapes(maps)}, kernel {w.kernel}, stride {w.stride}, dilation {w.dilation}, "
            f"dtype {_short(self.value.dtype)}, device {self.device}"
        )


# fastest first
BACKENDS = (
    triton.BACKEND,
    cpu.BACKEND,
    Backend("reference", device=None, missing=list, declines=lambda inputs: [], run=reference.attend),
)


def learned_query_attention(
    scores: Tensor,
    value: Tensor,
    bias: Tensor,
    weight: Tensor | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = "same",
    dilation: int | Sequence[int] = 1,
    backend: str | None = None,
) -> Tensor:
    """Attend overlapping windows with learned queries (Arar, Shamir, Bermano, CVPR 2022).

    For the window at position `i`, head `h`, queries `l` and taps `t` over map positions `j`::

        out[i,h] = sum_l ( sum_t weight[t,l,h] e^(scores[j,l,h] + bias[t,l,h]) value[j,h] )
                       / ( sum_t               e^(scores[j,l,h] + bias[t,l,h])            )

    Taps outside the map count in neither sum; a window that lies outside altogether gives 0. It is exact for
    any finite scores and biases; a score of -inf masks its position. Half precision is summed in fp32; on a
    GPU shares of bf16 maps, and their products with values, are rounded to bf16 as matrix units take them.

    Args:
        scores: (B, *space, L, h), one score per position, query and head; one to three space axes.
        value: (B, *space, h, d), of the same dtype.
        bias: (*kernel, L, h), relative position bias, inside the softmax.
        weight: (*kernel, L, h), query weights, in the numerator only; None for 1.
        stride: positions between windows; an integer or one per axis.
        padding: "same" pads ``dilation * (kernel - 1)`` per axis, the smaller half first, and gives
            ``ceil(size / stride)`` windows; an integer (or one per axis) pads both sides.
        dilation: positions between taps; an integer or one per axis.
        backend: "cpu", "reference", or another that `qna doctor` lists; None takes the fastest that can run.

    Returns:
        (B, *space', h, d) in the dtype of `value`.

    Raises:
        InvalidInput: shapes, dtypes, devices or window arguments that do not fit.
        NoBackend: the named backend cannot run these inputs; the text lists every reason.
    """
    _check(scores, value, bias, weight)
    kernel, size = bias.shape[:-2], scores.shape[1:-2]
    window = Window.over(size, kernel, stride=stride, padding=padding, dilation=dilation)
    chosen = select(NAME, BACKENDS, Inputs(scores, value, bias, weight, window), backend)
    return chosen.run(scores, value, bias, weight, window)


def packed_learned_query_attention(
    packed: Tensor,
    bias: Tensor,
    weight: Tensor | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = "same",
    dilation: int | Sequence[int] = 1,
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
        backend: as there.

    Returns:
        (B, *space', h, d), in memory with the heads fastest.
    """
    _check_packed(packed, bias, weight)
    kernel, size = bias.shape[:-2], packed.shape[1:-2]
    window = Window.over(size, kernel, stride=stride, padding=padding, dilation=dilation)
    chosen = select(NAME, BACKENDS, Inputs(None, packed, bias, weight, window), backend)
    return chosen.run(None, packed, bias, weight, window)


def _check(scores: Tensor, value: Tensor, bias: Tensor, weight: Tensor | None) -> None:
    given = _floats(scores=scores, value=value, bias=bias, weight=weight)
    axes = scores.ndim - 3
    if axes not in (1, 2, 3) or value.ndim != scores.ndim:
        raise InvalidInput(
            f"{NAME}: scores must be (B, *space, L, h) and value (B, *space, h, d) with 1 to 3 space "
            f"axes, got {_shapes(given)}"
        )
    if value.shape[:-2] != scores.shape[:-2] or value.shape[-2] != scores.shape[-1]:
        raise InvalidInput(
            f"{NAME}: scores (B, *space, L, h) and value (B, *space, h, d) disagree: {_shapes(given)}"
        )
    if 0 in scores.shape[1:] or 0 in value.shape[1:]:
        raise InvalidInput(f"{NAME}: only the batch may be empty, got {_shapes(given)}")
    if bias.ndim != axes + 2 or bias.shape[-2:] != scores.shape[-2:] or 0 in bias.shape:
        raise InvalidInput(
            f"{NAME}: bias must be (*kernel, L, h) with {axes} kernel axes and (L, h) = "
            f"{tuple(scores.shape[-2:])}, got {_shapes(given)}"
        )
    if scores.dtype != value.dtype:
        raise InvalidInput(
            f"{NAME}: scores and value must have one dtype, got {_short(scores.dtype)} and "
            f"{_short(value.dtype)}"
        )
    _check_tables(given)


def _check_packed(packed: Tensor, bias: Tensor, weight: Tensor | None) -> None:
    given = _floats(packed=packed, bias=bias, weight=weight)
    axes = packed.ndim - 3
    if axes not in (1, 2, 3) or 0 in packed.shape[1:]:
        raise InvalidInput(
            f"{NAME}: packed must be (B, *space, d + L, h) with 1 to 3 space axes, none of them empty but "
            f"the batch, got {_shapes(given)}"
        )
    if (
        bias.ndim != axes + 2
        or bias.shape[-1] != packed.shape[-1]
        or bias.shape[-2] >= packed.shape[-2]
        or 0 in bias.shape
    ):
        raise InvalidInput(
            f"{NAME}: bias must be (*kernel, L, h) with {axes} kernel axes, h = {packed.shape[-1]} and "
            f"L below d + L = {packed.shape[-2]}, got {_shapes(given)}"
        )
    _check_tables(given)


def _floats(**tensors: Tensor | None) -> dict[str, Tensor]:
    """Those that are given, if all are floating-point tensors."""
    given = {name: t for name, t in tensors.items() if t is not None}
    for name, t in given.items():
        if not isinstance(t, Tensor):
            raise InvalidInput(f"{NAME}: {name} must be a tensor, got {type(t).__name__}")
        if not t.is_floating_point():
            raise InvalidInput(
                f"{NAME}: {name} must be floating point, got {_short(t.dtype)}; try {name}.float()"
            )
    return given


def _check_tables(given: dict[str, Tensor]) -> None:
    bias, weight = given["bias"], given.get("weight")
    if weight is not None and weight.shape != bias.shape:
        raise InvalidInput(f"{NAME}: weight must have the shape of bias, got {_shapes(given)}")
    if any(t.device != bias.device for t in given.values()):
        devices = ", ".join(f"{name} on {t.device}" for name, t in given.items())
        raise InvalidInput(f"{NAME}: all tensors must be on one device, got {devices}")


def _shapes(tensors: dict[str, Tensor]) -> str:
    return ", ".join(f"{name} {tuple(t.shape)}" for name, t in tensors.items())


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
