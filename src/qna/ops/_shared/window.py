"""Geometry of a sliding window: taps, padding and output size on one to three axes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

from qna._core.checks import LARGEST, per_axis
from qna._core.errors import InvalidInput


class Window(NamedTuple):
    """A window of `kernel` taps that moves over a map.

    Attributes:
        kernel: taps per axis.
        stride: map positions between neighbouring windows, per axis.
        dilation: map positions between neighbouring taps, per axis.
        before: map positions that the first window hangs over the map's start, per axis.
        out: number of windows per axis.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    out: tuple[int, ...]

    @classmethod
    def over(
        cls,
        size: Sequence[int],
        kernel: Sequence[int],
        *,
        stride: int | Sequence[int],
        padding: str | int | Sequence[int],
        dilation: int | Sequence[int],
    ) -> Window:
        """The windows over a map of `size`.

        ``padding="same"`` pads ``dilation * (kernel - 1)`` positions per axis in all, the smaller half first,
        so that there are ``ceil(size / stride)`` windows; an integer pads both sides by as much.
        """
        kernel, axes = tuple(kernel), len(kernel)
        stride_ = per_axis("stride", stride, axes, minimum=1)
        dilation_ = per_axis("dilation", dilation, axes, minimum=1)
        span = [d * (k - 1) for d, k in zip(dilation_, kernel, strict=True)]
        if max(span) > LARGEST:
            raise InvalidInput(
                f"a window of kernel {kernel} and dilation {dilation_} spans 2**31 positions or more; "
                "use a smaller dilation"
            )
        if isinstance(padding, str):
            if padding != "same":
                raise InvalidInput(f"padding must be 'same', an integer or one per axis, got {padding!r}")
            before = tuple([s // 2 for s in span])
            out = tuple([(n + s - 1) // s for n, s in zip(size, stride_, strict=True)])
            return cls(kernel, stride_, dilation_, before, out)
        before = per_axis("padding", padding, axes, minimum=0)
        room = [n + 2 * p - s for n, p, s in zip(size, before, span, strict=True)]
        if min(room) <= 0:
            raise InvalidInput(
                f"no window fits: map {tuple(size)} with padding {padding} is smaller than the "
                f"window (kernel {kernel}, dilation {dilation_}); use padding='same' or a smaller window"
            )
        out = tuple([(r - 1) // s + 1 for r, s in zip(room, stride_, strict=True)])
        return cls(kernel, stride_, dilation_, before, out)

    @classmethod
    def from_flat(cls, kernel: Sequence[int], flat: Sequence[int]) -> Window:
        """The window that `flat` was made of."""
        axes, flat = len(kernel), tuple(flat)
        a, b = 2 * axes, 3 * axes
        return cls(tuple(kernel), flat[:axes], flat[axes:a], flat[a:b], flat[b:])

    @property
    def flat(self) -> tuple[int, ...]:
        """Stride, dilation, before and out in a row: what a kernel needs beside the shapes."""
        return self.stride + self.dilation + self.before + self.out

    def margins(self) -> list[int]:
        """Positions that the windows hang over a map at most, as `F.pad` takes them: last axis first.

        At least as many behind the map as before it, whatever its size, so that graphs which are recorded for
        maps of any size hold no comparison of sizes.
        """
        margins = []
        for d, k, before in zip(self.dilation, self.kernel, self.before, strict=True):
            margins = [before, max(before, d * (k - 1) - before), *margins]
        return margins

    def taps(self) -> list[tuple[tuple[int, ...], tuple[slice, ...]]]:
        """Each tap with the slices of the padded map that hold its position in every window."""
        return [
            (
                tap,
                tuple(
                    slice(t * d, t * d + (o - 1) * s + 1, s)
                    for t, d, o, s in zip(tap, self.dilation, self.out, self.stride, strict=True)
                ),
            )
            for tap in product(*map(range, self.kernel))
        ]
