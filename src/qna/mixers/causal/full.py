"""Attention to all that came before: what memories and narrower attention have to beat."""

from __future__ import annotations

import torch
from torch import Tensor

from qna._core.about import About
from qna.mixers.causal.softmax import SoftmaxAttention
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.causal_attend import attend_before
from qna.parts.kv_cache import CachePolicy, KeepAll
from qna.parts.sequence_state import SequenceState


class CausalAttention1d(SoftmaxAttention):
    """Each position attends itself and all before it: a decoder's attention, with rotary positions.

    Vaswani et al., NeurIPS 2017, section 3.2; heads of queries share keys and values as in Ainslie et al.
    (arXiv 2305.13245). Of N positions with C channels, h heads of d and g of keys it costs
    ``2 N C d (h + g) + N (N + 1) h d`` multiply-adds; the cache holds ``2 g d`` numbers for each position.
    Any cache policy may keep less: `policy_state`. Arguments of `SoftmaxAttention`.
    """

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Over all positions up to its own."""
        return attend_before(query, key, value)

    @property
    def policy(self) -> CachePolicy:
        """Everything is kept."""
        return KeepAll()

    def policy_state(
        self,
        batch: int,
        policy: CachePolicy,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> SequenceState:
        """As `init_state`, with a cache that keeps what `policy` says, and no query sees what it dropped."""
        return self.kept_by(policy, batch, device, dtype)

    def pairs(self, length: int) -> int:
        """A triangle."""
        return length * (length + 1) // 2


ROW = MixerRow(
    CausalAttention1d,
    About(
        title="Attention Is All You Need",
        authors="Vaswani, Shazeer, Parmar et al.",
        venue="NeurIPS 2017",
        arxiv="1706.03762",
        read="transformers 5.24's Llama attention (Apache-2.0), grouped heads and rotary positions included",
        differs="rotary positions in the layout of pairs as well, or none; a cache that is a value",
        status="exact",
    ),
    Example((9,), {"num_heads": 4, "kv_heads": 2}),
    Traits(1, heads=True, causal=True),
)
