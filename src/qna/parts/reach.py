"""Of which positions of its input a layer makes each position of its output, along one axis."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Reach:
    """A rule that repeats: output positions come in blocks, and what a block sees moves on evenly.

    Output position i lies in block ``k = (i - phase) // block``, and block k sees the input positions
    ``step * k + first`` to ``step * k + last``, both included; what of them lies outside the map is padding.

    ======================================  =====  ====  ============  =======================  ========
    layer                                   block  step  first         last                     phase
    ======================================  =====  ====  ============  =======================  ========
    a linear map of the channels            1      1     0             0                        0
    convolution, pooling, QnA               1      s     -p            d (k - 1) - p            0
    attention inside windows of w           w      w     0             w - 1                    0
    a slice ``[a::s]``                      1      s     a             a                        0
    nearest up-sampling by r                r      1     0             0                        0
    linear up-sampling by r                 r      1     0             1                        r // 2
    transposed convolution                  s      1     -d (k-1)//s   0                        -p
    ======================================  =====  ====  ============  =======================  ========

    It holds for every position, those near the map's border included.

    Attributes:
        step: positions of the input between two blocks.
        first: of block 0, the first position that it sees.
        last: and the last.
        block: output positions in a block.
        phase: the first position of block 0.
    """

    step: int = 1
    first: int = 0
    last: int = 0
    block: int = 1
    phase: int = 0

    @classmethod
    def of_window(cls, kernel: int, *, stride: int = 1, dilation: int = 1, before: int = 0) -> Reach:
        """Windows of `kernel` taps; the first hangs `before` positions over the map's start."""
        return cls(stride, -before, dilation * (kernel - 1) - before)

    @classmethod
    def of_blocks(cls, size: int) -> Reach:
        """Blocks of `size` positions, each of which sees itself as a whole."""
        return cls(size, 0, size - 1, size)

    @property
    def stride(self) -> Fraction:
        """Positions of the input per position of the output."""
        return Fraction(self.step, self.block)

    def sources(self, low: int, high: int) -> tuple[int, int]:
        """First and last position that the output positions `low` to `high` (included) see."""
        return (
            self.step * ((low - self.phase) // self.block) + self.first,
            self.step * ((high - self.phase) // self.block) + self.last,
        )


SAME_PLACE = Reach()
