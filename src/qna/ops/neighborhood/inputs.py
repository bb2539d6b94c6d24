"""What the op and its halves are given: checked once, for all backends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor

from qna._core.backends import short
from qna._core.errors import InvalidInput, check_choice
from qna.ops.neighborhood.geometry import WindowAxis, window_axes

NAME = "qna.ops.neighborhood_attention"
# what torch multiplies and adds on every device
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class NeighborhoodWindow(TypedDict, total=False):
    """What windows are beside their size; `window_axes` has the defaults."""

    stride: int | Sequence[int]
    dilation: int | Sequence[int]
    is_causal: bool | Sequence[bool]
    border: str


@dataclass(frozen=True)
class NeighborhoodInputs:
    """Checked inputs of the op, as its backends judge them. Made by `checked`.

    Attributes:
        q: (B, *space, heads, d).
        k: the same.
        v: (B, *space, heads, e).
        bias: (heads, *(2 kernel - 1)), or None.
        extra_keys: (B, M, heads, d), or None.
        extra_values: (B, M, heads, e), or None.
        key_mask: (B, *space), False where no query may look, or None.
        scale: what products of queries and keys are multiplied with.
        axes: the windows.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    bias: Tensor | None
    extra_keys: Tensor | None
    extra_values: Tensor | None
    key_mask: Tensor | None
    scale: float
    axes: tuple[WindowAxis, ...]

    @classmethod
    def checked(
        cls,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        kernel_size: int | Sequence[int],
        window: NeighborhoodWindow,
        *,
        scale: float | None,
        **optional: Tensor | None,
    ) -> NeighborhoodInputs:
        """Of the arguments of the op; `optional` are bias, extra_keys, extra_values and key_mask.

        Raises:
            InvalidInput: shapes, dtypes, devices, numbers or windows that do not fit.
        """
        check_maps(NAME, q=q, k=k, v=v)
        axes = windows(NAME, q, kernel_size, window)
        check_bias(NAME, optional["bias"], q, axes)
        check_key_mask(NAME, optional["key_mask"], k)
        _check_extra(q, v, optional["extra_keys"], optional["extra_values"])
        return cls(q, k, v, **optional, scale=scale_of(NAME, scale, q), axes=axes)

    @property
    def arguments(self) -> tuple:
        """As backends run them: all attributes in their order."""
        return (*self.tensors, self.scale, self.axes)

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """All of them."""
        return (self.q, self.k, self.v, self.bias, self.extra_keys, self.extra_values, self.key_mask)

    @property
    def device(self) -> torch.device:
        """Where all tensors are."""
        return self.q.device

    @property
    def dtype(self) -> torch.dtype:
        """Of queries, keys and values."""
        return self.q.dtype

    @property
    def head_dim(self) -> int:
        """Channels of a query."""
        return self.q.shape[-1]

    @property
    def value_dim(self) -> int:
        """Channels of a value."""
        return self.v.shape[-1]

    @property
    def positions(self) -> int:
        """Of the map."""
        return math.prod(axis.size for axis in self.axes)

    @property
    def taps(self) -> int:
        """Of a window."""
        return math.prod(axis.kernel for axis in self.axes)

    def describe(self) -> str:
        """Shapes, windows, dtype and device in one line."""
        extra = "" if self.extra_keys is None else f", {self.extra_keys.shape[1]} extra keys"
        return (
            f"{_shapes({'q': self.q, 'v': self.v})}, {_windows_told(self.axes)}{extra}, "
            f"dtype {short(self.dtype)}, device {self.device}"
        )


@dataclass(frozen=True)
class HalfInputs:
    """Checked inputs of a half, as its backends judge them.

    Attributes:
        tensors: its two maps, and what else it takes or None.
        scale: of the products.
        axes: the windows.
    """

    tensors: tuple[Tensor | None, ...]
    scale: float
    axes: tuple[WindowAxis, ...]

    @property
    def arguments(self) -> tuple:
        """As backends run them."""
        return (*self.tensors, self.scale, self.axes)

    @property
    def device(self) -> torch.device:
        """Where all tensors are."""
        return self._first.device

    @property
    def dtype(self) -> torch.dtype:
        """Of both maps."""
        return self._first.dtype

    def describe(self) -> str:
        """Shapes, windows, dtype and device in one line."""
        names = ("first", "second", "bias", "key_mask")
        named = {n: t for n, t in zip(names, self.tensors, strict=False) if t is not None}
        return (
            f"{_shapes(named)}, {_windows_told(self.axes)}, dtype {short(self.dtype)}, device {self.device}"
        )

    @property
    def _first(self) -> Tensor:
        first = self.tensors[0]
        assert first is not None
        return first


def check_maps(owner: str, **maps: Tensor) -> None:
    """Maps (B, *space, heads, channels) of one size, dtype and device; q and k of as many channels."""
    for name, t in maps.items():
        if not isinstance(t, Tensor):
            raise InvalidInput(f"{owner}: {name} must be a tensor, got {type(t).__name__}")
        if t.is_nested or t.layout != torch.strided:
            kind = "a nested tensor" if t.is_nested else str(t.layout)
            raise InvalidInput(
                f"{owner}: {name} must be a dense tensor, got {kind}; give one padded or dense"
            )
        if t.dtype not in _DTYPES:
            names = ", ".join(map(short, _DTYPES))
            raise InvalidInput(
                f"{owner}: {name} must be one of ({names}), got {short(t.dtype)}; try {name}.float()"
            )
    (first, one), *others = maps.items()
    if one.ndim not in (4, 5, 6):
        raise InvalidInput(
            f"{owner}: {first} must be (B, *space, heads, channels) with 1 to 3 space axes, the heads after "
            f"space, got {_shapes(maps)}"
        )
    if any(t.shape[:-1] != one.shape[:-1] for _, t in others) or (
        "q" in maps and "k" in maps and maps["q"].shape != maps["k"].shape
    ):
        raise InvalidInput(
            f"{owner}: {', '.join(maps)} must agree in batch, space and heads, and q and k in channels, "
            f"got {_shapes(maps)}"
        )
    if any(0 in t.shape[1:] for t in maps.values()):
        raise InvalidInput(f"{owner}: only the batch may be empty, got {_shapes(maps)}")
    if any(t.dtype != one.dtype for _, t in others):
        dtypes = ", ".join(f"{name} {short(t.dtype)}" for name, t in maps.items())
        raise InvalidInput(f"{owner}: {', '.join(maps)} must have one dtype, got {dtypes}")
    for name, t in others:
        _check_device(owner, name, t, one)


def windows(
    owner: str, of: Tensor, kernel_size: int | Sequence[int], window: NeighborhoodWindow
) -> tuple[WindowAxis, ...]:
    """The windows of a map (B, *space, heads, channels)."""
    for name in window:
        check_choice(f"argument of {owner}", name, NeighborhoodWindow.__annotations__)
    return window_axes(owner, of.shape[1:-2], kernel_size, **window)


def check_bias(owner: str, bias: Tensor | None, q: Tensor, axes: Sequence[WindowAxis]) -> None:
    """A bias must be (heads, *(2 kernel - 1)), of any floating dtype."""
    if bias is None:
        return
    expected = (q.shape[-2], *(2 * axis.kernel - 1 for axis in axes))
    if not isinstance(bias, Tensor) or not bias.is_floating_point() or bias.shape != expected:
        raise InvalidInput(
            f"{owner}: bias must be a floating-point tensor (heads, *(2 kernel_size - 1)) = {expected}, "
            f"got {_told(bias)}"
        )
    _check_device(owner, "bias", bias, q)


def check_key_mask(owner: str, key_mask: Tensor | None, k: Tensor) -> None:
    """A mask of keys must be bool (B, *space)."""
    if key_mask is None:
        return
    expected = tuple(k.shape[:-2])
    if not isinstance(key_mask, Tensor) or key_mask.dtype != torch.bool or key_mask.shape != expected:
        raise InvalidInput(
            f"{owner}: key_mask must be a bool tensor (B, *space) = {expected}, True where a key may be "
            f"attended, got {_told(key_mask)}"
        )
    _check_device(owner, "key_mask", key_mask, k)


def scale_of(owner: str, scale: float | None, q: Tensor) -> float:
    """The scale that is given, or that of `q`."""
    if scale is None:
        return q.shape[-1] ** -0.5
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not math.isfinite(scale):
        raise InvalidInput(f"{owner}: scale must be a finite number or None, got {scale!r}")
    return float(scale)


def _check_extra(q: Tensor, v: Tensor, keys: Tensor | None, values: Tensor | None) -> None:
    if keys is None and values is None:
        return
    given: dict[str, Any] = {"extra_keys": keys, "extra_values": values}
    if not all(isinstance(t, Tensor) and t.ndim == 4 and t.dtype == q.dtype for t in given.values()):
        raise InvalidInput(
            f"{NAME}: extra_keys (B, M, heads, d) and extra_values (B, M, heads, e) go together, in the "
            f"dtype of q, {short(q.dtype)}, got {' and '.join(map(_told, given.values()))}"
        )
    extra = given["extra_keys"].shape[1]
    for (name, t), m in zip(given.items(), (q, v), strict=True):
        if t.shape != (expected := (q.shape[0], extra, *m.shape[-2:])):
            raise InvalidInput(f"{NAME}: {name} must be {expected} beside q and v, got {tuple(t.shape)}")
        _check_device(NAME, name, t, q)


def _check_device(owner: str, name: str, t: Tensor, other: Tensor) -> None:
    if t.device != other.device:
        raise InvalidInput(
            f"{owner}: all tensors must be on one device, got {name} on {t.device} beside {other.device}"
        )


def _told(t: object) -> str:
    return f"{short(t.dtype)} {tuple(t.shape)}" if isinstance(t, Tensor) else type(t).__name__


def _windows_told(axes: Sequence[WindowAxis]) -> str:
    first = axes[0]
    each = {name: tuple(getattr(axis, name) for axis in axes) for name in first._fields[1:-1]}
    return ", ".join([*(f"{name} {values}" for name, values in each.items()), f"border {first.border}"])


def _shapes(tensors: dict[str, Tensor]) -> str:
    return ", ".join(f"{name} {tuple(t.shape)}" for name, t in tensors.items())
