"""Attention by what tokens are and not by what they have become: queries and keys of embeddings."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from qna.mixers.causal.deconstructed.about import ABOUT
from qna.mixers.causal.deconstructed.sourced import SourcedAttention
from qna.mixers.causal.full import CausalAttention1d
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.qk_source import OwnEmbeddings


class StaticQueryKey1d(SourcedAttention, CausalAttention1d):
    """StaticEmbQK (Xue et al., arXiv 2510.11602, equation 13)::

        Q, K = e W_Q, e W_K        V = H W_V

    with e the embeddings of the sequence's own tokens and H what earlier layers have made of them. A decoder
    gives e to every layer, through the norm of the layer as it gives H (our choice: in the first layer this
    is standard attention then). Without a network e is the input, and all is standard attention. It costs and
    keeps what standard attention does; any cache policy may keep less. Arguments of `CausalAttention1d`.
    """

    @property
    def qk_source(self) -> OwnEmbeddings:
        """The embeddings of each sequence's tokens."""
        return OwnEmbeddings()

    def by_itself(self, x: Tensor, start: int) -> Tensor:
        """The input."""
        return x


ROW = MixerRow(
    StaticQueryKey1d,
    replace(ABOUT, differs="embeddings pass the norm of each layer; rotary positions, which it leaves open"),
    Example((9,), {"num_heads": 4, "kv_heads": 2}),
    Traits(1, heads=True, causal=True),
)
