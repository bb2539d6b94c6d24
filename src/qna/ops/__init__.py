"""Ops with kernels of their own; one folder, and one row of `OPS`, each."""

from qna._core.backends import use_backend
from qna.ops import activation, block_sparse, learned_query, neighborhood
from qna.ops._shared.flops import register_flop_formulas
from qna.ops.activation import gelu
from qna.ops.block_sparse import block_sparse_attention
from qna.ops.learned_query import learned_query_attention, packed_learned_query_attention
from qna.ops.neighborhood import neighborhood_attention, neighborhood_av, neighborhood_qk

__all__ = [
    "OPS",
    "block_sparse_attention",
    "gelu",
    "learned_query_attention",
    "neighborhood_attention",
    "neighborhood_av",
    "neighborhood_qk",
    "packed_learned_query_attention",
    "register_flop_formulas",
    "use_backend",
]

OPS = (learned_query.ROW, neighborhood.ROW, activation.ROW, block_sparse.ROW)
