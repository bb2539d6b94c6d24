"""Attention ops with kernels of their own; one folder each."""

from qna._core.backends import use_backend
from qna.ops import learned_query
from qna.ops._shared.flops import register_flop_formulas
from qna.ops.learned_query import learned_query_attention, packed_learned_query_attention

__all__ = [
    "BACKENDS",
    "learned_query_attention",
    "packed_learned_query_attention",
    "register_flop_formulas",
    "use_backend",
]

# every op with its backends, fastest first: what `qna doctor` reports
BACKENDS = {learned_query.NAME: learned_query.BACKENDS}
