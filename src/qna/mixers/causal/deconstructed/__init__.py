"""Attention taken apart (Xue et al.): what mixes, in which form, and of what queries and keys are made."""

from qna.mixers.causal.deconstructed import fixed_maps, key_only, mlp, static_embedding, taylor
from qna.mixers.causal.deconstructed.fixed_maps import FixedTextQueryKey1d, RandomQueryKey1d
from qna.mixers.causal.deconstructed.key_only import KeyOnlyAttention1d
from qna.mixers.causal.deconstructed.mlp import PositionwiseMlp1d
from qna.mixers.causal.deconstructed.static_embedding import StaticQueryKey1d
from qna.mixers.causal.deconstructed.taylor import TaylorAttention1d

__all__ = [
    "ROWS",
    "FixedTextQueryKey1d",
    "KeyOnlyAttention1d",
    "PositionwiseMlp1d",
    "RandomQueryKey1d",
    "StaticQueryKey1d",
    "TaylorAttention1d",
]

ROWS = (mlp.ROW, taylor.ROW, key_only.ROW, *fixed_maps.ROWS, static_embedding.ROW)
