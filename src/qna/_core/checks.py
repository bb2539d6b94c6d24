"""Checks of what a mixer is given; each error holds the values and the way out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from torch import Tensor

from qna._core.errors import InvalidInput


def positive(owner: str, **sizes: int) -> None:
    """Every size must be an integer of at least 1."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise InvalidInput(f"{owner}: {name} must be an integer of at least 1, got {size!r}")


def natural(owner: str, **counts: int) -> None:
    """Every count must be an integer of at least 0."""
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise InvalidInput(f"{owner}: {name} must be an integer of at least 0, got {count!r}")


def rate(owner: str, **rates: float) -> None:
    """All must be parts of what is left out at random: at least 0 and below 1, or nothing would be left."""
    for name, value in rates.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            raise InvalidInput(f"{owner}: {name} must be at least 0 and below 1, got {value!r}")


def not_negative(owner: str, **numbers: float) -> None:
    """All must be at least 0 and finite, as weights of losses are."""
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise InvalidInput(f"{owner}: {name} must be at least 0 and finite, got {value!r}")


def head_dim(owner: str, dim: int, num_heads: int, *, of: str = "dim") -> int:
    """Channels of one head; `num_heads` must divide `dim`, which the caller's argument `of` told."""
    positive(owner, **{of: dim, "num_heads": num_heads})
    if dim % num_heads:
        divisors = [n for n in range(1, dim + 1) if dim % n == 0]
        near = sorted(sorted(divisors, key=lambda n: abs(n - num_heads))[:2])
        raise InvalidInput(
            f"{owner}: num_heads must divide {of}, got num_heads={num_heads} and {of}={dim}; "
            f"try {' or '.join(map(str, near))}"
        )
    return dim // num_heads


def channels_last_map(owner: str, x: Tensor, dim: int, axes: int) -> None:
    """`x` must be (B, *space, C) with `axes` space axes, none of them empty, and `dim` channels."""
    if x.ndim != axes + 2 or x.shape[-1] != dim:
        space = ", ".join(("H", "W") if axes == 2 else ("D", "H", "W") if axes == 3 else ("N",))
        raise InvalidInput(
            f"{owner}: input must be (B, {space}, C) with C = {dim}, got {tuple(x.shape)}; "
            "channels come last: x.movedim(1, -1) turns channels first into it"
        )
    if 0 in x.shape[1:-1]:
        raise InvalidInput(f"{owner}: only the batch may be empty, got {tuple(x.shape)}")


def channels_first_volume(owner: str, x: Tensor, channels: int) -> None:
    """`x` must be a volume (B, C, D, H, W), no axis of it empty, of so many channels."""
    if x.ndim != 5 or x.shape[1] != channels or 0 in x.shape[2:]:
        raise InvalidInput(
            f"{owner}: a volume must be (B, C, D, H, W) with C = {channels} and no axis empty, got "
            f"{tuple(x.shape)}"
        )


# kernels count positions in 32 bits
LARGEST = 2**31 - 1


def per_axis(name: str, value: int | Sequence[int], axes: int, *, minimum: int) -> tuple[int, ...]:
    """Expand one integer, or check one integer per axis, each at least `minimum` and below 2**31."""
    # what ops are called with, asked first
    if type(value) is int and minimum <= value <= LARGEST:
        return (value,) * axes
    if isinstance(value, int):
        values = (value,) * axes
    else:
        # a tensor without axes calls itself iterable, and the numbers of others are tensors again
        values = tuple(value) if isinstance(value, Iterable) and not isinstance(value, Tensor) else ()
    if len(values) != axes or not all(
        isinstance(v, int) and not isinstance(v, bool) and v >= minimum for v in values
    ):
        raise InvalidInput(
            f"{name} must be an integer of at least {minimum}, or one for each of {axes} axes, got {value!r}"
        )
    if max(values) > LARGEST:
        raise InvalidInput(f"{name} must be below 2**31, got {value!r}")
    return values
