"""What the op is given: checked once, for all backends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor

from qna._core.backends import short
from qna._core.checks import per_axis
from qna._core.errors import InvalidInput
from qna.ops._shared.window import Window

NAME = "qna.ops.learned_query_attention"


class WindowArguments(TypedDict):
    """The op's arguments that are no tensors."""

    stride: int | Sequence[int]
    padding: str | int | Sequence[int]
    dilation: int | Sequence[int]
    factor: int | Sequence[int]


@dataclass(frozen=True)
class Inputs:
    """Checked inputs of the op, as its backends judge them. Made by `apart` and `packed`.

    Attributes:
        maps: scores (B, *space, L, h) and value (B, *space, h, d), or packed (B, *space, d + L, h), by name.
        value: of these the one that holds the values.
        bias: (*kernel, L, h).
        weight: (*kernel, L, h), or None for 1.
        window: taps, strides and number of windows.
        factor: outputs of a window per axis.
        head_dim: d, channels per head.
    """

    maps: dict[str, Tensor]
    value: Tensor
    bias: Tensor
    weight: Tensor | None
    window: Window
    factor: tuple[int, ...]
    head_dim: int

    @classmethod
    def apart(
        cls,
        scores: Tensor,
        value: Tensor,
        bias: Tensor,
        weight: Tensor | None,
        geometry: WindowArguments,
    ) -> Inputs:
        """Of scores and values in maps of their own.

        Raises:
            InvalidInput: shapes, dtypes, devices or window arguments that do not fit.
        """
        given = _floats(weight, scores=scores, value=value, bias=bias)
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
                f"{NAME}: scores and value must have one dtype, got {short(scores.dtype)} and "
                f"{short(value.dtype)}"
            )
        _check_tables(given)
        over = _geometry(scores.shape[1:-2], bias, geometry)
        return cls({"scores": scores, "value": value}, value, bias, weight, *over, value.shape[-1])

    @classmethod
    def packed(cls, packed: Tensor, bias: Tensor, weight: Tensor | None, geometry: WindowArguments) -> Inputs:
        """Of scores and values in one map.

        Raises:
            InvalidInput: shapes, dtypes, devices or window arguments that do not fit.
        """
        given = _floats(weight, packed=packed, bias=bias)
        axes = packed.ndim - 3
        if axes not in (1, 2, 3) or 0 in packed.shape[1:]:
            raise InvalidInput(
                f"{NAME}: packed must be (B, *space, d + L, h) with 1 to 3 space axes, none of them empty "
                f"but the batch, got {_shapes(given)}"
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
        over = _geometry(packed.shape[1:-2], bias, geometry)
        return cls({"packed": packed}, packed, bias, weight, *over, packed.shape[-2] - bias.shape[-2])

    @property
    def arguments(self) -> tuple[Tensor | None, Tensor, Tensor, Tensor | None, Window, tuple[int, ...]]:
        """As backends run them: scores (None where one map holds both), value, bias, weight, geometry."""
        return self.maps.get("scores"), self.value, self.bias, self.weight, self.window, self.factor

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """All of them."""
        return (*self.maps.values(), self.bias, self.weight)

    @property
    def device(self) -> torch.device:
        """Where all tensors are."""
        return self.bias.device

    @property
    def dtype(self) -> torch.dtype:
        """Of scores and values."""
        return self.value.dtype

    @property
    def queries(self) -> int:
        """L, queries per head."""
        return self.bias.shape[-2]

    def describe(self) -> str:
        """Shapes, dtype and device in one line."""
        w, factor = self.window, f"factor {self.factor}, " if set(self.factor) != {1} else ""
        return (
            f"{_shapes(self.maps)}, kernel {w.kernel}, stride {w.stride}, dilation {w.dilation}, {factor}"
            f"dtype {short(self.dtype)}, device {self.device}"
        )


def _geometry(
    size: Sequence[int], bias: Tensor, arguments: WindowArguments
) -> tuple[Window, tuple[int, ...]]:
    """The windows over a map of `size`, and the outputs of each per axis."""
    factor = per_axis("factor", arguments.get("factor", 1), len(size), minimum=1)
    kernel, queries = bias.shape[:-2], bias.shape[-2]
    if queries % math.prod(factor):
        raise InvalidInput(
            f"{NAME}: factor {factor} gives a window {math.prod(factor)} outputs with as many queries each, "
            f"so L must be a multiple of that, got L = {queries}"
        )
    window = Window.over(
        size,
        kernel,
        stride=arguments["stride"],
        padding=arguments["padding"],
        dilation=arguments["dilation"],
    )
    return window, factor


def _floats(weight: Tensor | None, **needed: Tensor) -> dict[str, Tensor]:
    """All that are given, if these are floating-point tensors."""
    given = needed if weight is None else {**needed, "weight": weight}
    for name, t in given.items():
        if not isinstance(t, Tensor):
            raise InvalidInput(f"{NAME}: {name} must be a tensor, got {type(t).__name__}")
        if not t.is_floating_point():
            raise InvalidInput(
                f"{NAME}: {name} must be floating point, got {short(t.dtype)}; try {name}.float()"
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
