"""A gated MLP in the place of attention: what is left when no position sees another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from qna.mixers.causal.deconstructed.about import ABOUT
from qna.mixers.causal.mixer import CausalMixer
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.gated_mlp import GatedMlp
from qna.parts.grouped_heads import GroupedHeads
from qna.parts.sequence_state import SequenceState


class PositionwiseMlp1d(CausalMixer):
    """``down(SiLU(gate(x)) * up(x))``, position by position (Xue et al., arXiv 2510.11602, equation 5).

    It has the parameters of attention with these heads, ``2 C d (h + g)`` of h heads of d channels and g of
    keys: 3 C w of w hidden channels, w rounded where 3 does not divide. It costs as many multiply-adds for
    each position, and remembers nothing.

    Args:
        dim: channels C of input and output.
        num_heads: of the attention whose parameters it has.
        kv_heads: of its keys and values, a divisor of `num_heads`; None for as many.

    Raises:
        InvalidInput: heads do not divide.
    """

    def __init__(self, dim: int, *, num_heads: int, kv_heads: int | None = None):
        super().__init__()
        with torch.device("meta"):
            heads = GroupedHeads(type(self).__name__, dim, num_heads=num_heads, kv_heads=kv_heads)
        inner = heads.head_dim * (heads.num_heads + heads.kv_heads)
        self.dim = self.out_dim = dim
        self.mlp = GatedMlp(dim, max(1, round(2 * inner / 3)))

    def begin(self, batch: int, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
        """Nothing."""
        return {}

    def advance(self, x: Tensor, state: SequenceState) -> tuple[Tensor, SequenceState]:
        """Each position by itself."""
        return self.mlp(x), state.after(x.shape[1])

    def state_bytes(self, size: Sequence[int], dtype: torch.dtype = torch.float32) -> int:
        """None."""
        return 0

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for sequences of `size` = (B, N, dim)."""
        return math.prod(size) * 3 * self.mlp.up.out_features

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: gates, what they close, and their product."""
        return math.prod(size[:2]) * max(3 * self.mlp.up.out_features, self.dim)

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        return f"{self.dim}, hidden={self.mlp.up.out_features}"


_ALONE = "positions do not see each other, and nothing is remembered"
ROW = MixerRow(
    PositionwiseMlp1d,
    replace(ABOUT, differs="hidden channels are rounded where the count of parameters has no third"),
    Example((9,), {"num_heads": 4, "kv_heads": 2}),
    Traits(1, heads=True, causal=True),
    exempt=dict.fromkeys(("the_order_of_positions_counts", "bytes_are_told", "on_no_device"), _ALONE),
)
