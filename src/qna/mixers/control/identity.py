"""No mixing at all: what a network does whose positions never meet in its blocks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from qna._core import checks
from qna._core.about import About
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.reach import SAME_PLACE, Reach


class Identity2d(nn.Module):
    """The map as it is (IdentityFormer's mixer; Yu et al., TPAMI 2023).

    Args:
        dim: channels of input and output.

    Raises:
        InvalidInput: `dim` is not positive.
    """

    def __init__(self, dim: int):
        super().__init__()
        checks.positive(type(self).__name__, dim=dim)
        self.dim = self.out_dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> the same."""
        checks.channels_last_map(type(self).__name__, x, self.dim, 2)
        return x

    def macs(self, size: Sequence[int]) -> int:
        """None."""
        return 0

    def held(self, size: Sequence[int]) -> int:
        """Nothing beside the input, which comes out."""
        return 0

    def reach(self, size: Sequence[int]) -> tuple[Reach, ...]:
        """Itself."""
        return (SAME_PLACE, SAME_PLACE)

    def extra_repr(self) -> str:
        """The channels."""
        return f"{self.dim}"


_NOTHING_TO_LEARN = "it has no parameters"
ROW = MixerRow(
    Identity2d,
    About(
        title="MetaFormer Baselines for Vision",
        authors="Yu, Si, Zhou et al.",
        venue="TPAMI 2023",
        arxiv="2210.13452",
        read="timm 1.0.31's IdentityFormer (Apache-2.0)",
        differs="",
        status="exact",
    ),
    Example((5, 7)),
    Traits(2),
    {
        "the_order_of_positions_counts": "every position stays what it is",
        "state_dict_round_trip": _NOTHING_TO_LEARN,
        "bfloat16_autocast": _NOTHING_TO_LEARN,
        "costs_are_told": "it costs nothing",
    },
)
