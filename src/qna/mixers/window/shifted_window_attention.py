"""Self-attention inside windows that lie between those of the block before: Swin's shifted windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from qna._core.checks import per_axis
from qna._core.errors import InvalidInput
from qna.mixers.row import Example, MixerRow, Traits
from qna.mixers.window.window_attention import ROW as UNSHIFTED
from qna.mixers.window.window_attention import WindowAttention2d
from qna.parts.reach import Reach

# more windows than an axis has
_MANY = 2**32


class ShiftedWindowAttention2d(WindowAttention2d):
    """Swin's SW-MSA (Liu et al., ICCV 2021, section 3.2): windows that begin `shift_size` positions later.

    Along an axis the windows are ``[s - w, s), [s, s + w), ...``, cut at the map. Swin's code rolls the map
    instead, so that the first and the last cut window become one, and masks what the roll brought together:
    the same for every position that is kept. Here each cut window is padded: no copy for the roll, for one
    more window per axis. A masked window that holds the whole axis is not shifted, as in Swin's code.

    Args:
        dim: channels of input and output.
        num_heads: heads; divides `dim`.
        window_size: height and width of a window; an integer for both.
        shift_size: where the second window begins, per axis, below the window; None for half a window.
        bias: whether queries, keys, values and output have a bias.
        border: as for `WindowAttention2d`; "zero" concerns the padding to a multiple of the window at the
            map's end, before it is rolled.

    Raises:
        InvalidInput: as for `WindowAttention2d`, or a shift that is no smaller than the window.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        window_size: int | Sequence[int],
        shift_size: int | Sequence[int] | None = None,
        bias: bool = True,
        border: str = "mask",
    ):
        super().__init__(dim, num_heads=num_heads, window_size=window_size, bias=bias, border=border)
        half = [k // 2 for k in self.window_size]
        self.shift_size = per_axis("shift_size", half if shift_size is None else shift_size, 2, minimum=0)
        if any(s >= k for s, k in zip(self.shift_size, self.window_size, strict=True)):
            raise InvalidInput(
                f"{type(self).__name__}: shift_size must be below window_size, got {self.shift_size} and "
                f"{self.window_size}; None shifts by half a window"
            )

    def reach(self, size: Sequence[int]) -> tuple[Reach, ...]:
        """A window sees itself; the second one begins at the shift."""
        shifts = (self._shift(n, axis) for axis, n in enumerate(size[1:3]))
        return tuple(Reach(k, s, s + k - 1, k, s) for k, s in zip(self.window_size, shifts, strict=True))

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        return f"{super().extra_repr()}, shift_size={self.shift_size}"

    def _shift(self, size: int, axis: int) -> int:
        window, shift = self.window_size[axis], self.shift_size[axis]
        if self.border == "zero" or not shift:
            return shift
        # 1 where there is more than a window, else 0: without a comparison, to which a recorder would keep
        larger = ((size - 1) // window + _MANY - 1) // _MANY
        return shift * larger


ROW = MixerRow(
    ShiftedWindowAttention2d,
    replace(
        UNSHIFTED.about,
        read="the paper; timm 1.0.31's Swin block (Apache-2.0)",
        differs="cut windows are padded where Swin's code rolls the map; what fills up a map is masked "
        "unless asked for; timm rolls before it pads, so that on maps that windows do not divide its first "
        "rows attend its last ones",
        status="exact",
    ),
    Example((7, 8), {"num_heads": 2, "window_size": 3}),
    Traits(2, heads=True),
)
