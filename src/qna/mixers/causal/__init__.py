"""Causal mixers: sequences (B, N, C) -> (B, N, C) that look back alone and may be given in parts."""

from qna.mixers.causal import (
    core_context,
    deconstructed,
    full,
    gated,
    linear,
    proxy,
    shifted,
    sliding,
    titans,
)
from qna.mixers.causal.core_context import CoreContextAttention1d
from qna.mixers.causal.deconstructed import (
    FixedTextQueryKey1d,
    KeyOnlyAttention1d,
    PositionwiseMlp1d,
    RandomQueryKey1d,
    StaticQueryKey1d,
    TaylorAttention1d,
)
from qna.mixers.causal.full import CausalAttention1d
from qna.mixers.causal.gated import GatedCausalAttention1d
from qna.mixers.causal.linear import CausalLinearAttention1d
from qna.mixers.causal.proxy import ProxyAttention1d
from qna.mixers.causal.shifted import ShiftedSparseAttention1d, SinkFixedAttention1d
from qna.mixers.causal.sliding import SlidingAttention1d
from qna.mixers.causal.titans import MemoryAsContext1d, MemoryAsGate1d, MemoryAsLayer1d, NeuralMemory1d

__all__ = [
    "ROWS",
    "CausalAttention1d",
    "CausalLinearAttention1d",
    "CoreContextAttention1d",
    "FixedTextQueryKey1d",
    "GatedCausalAttention1d",
    "KeyOnlyAttention1d",
    "MemoryAsContext1d",
    "MemoryAsGate1d",
    "MemoryAsLayer1d",
    "NeuralMemory1d",
    "ShiftedSparseAttention1d",
    "SinkFixedAttention1d",
    "PositionwiseMlp1d",
    "RandomQueryKey1d",
    "ProxyAttention1d",
    "SlidingAttention1d",
    "StaticQueryKey1d",
    "TaylorAttention1d",
]

ROWS = (
    full.ROW,
    sliding.ROW,
    linear.ROW,
    core_context.ROW,
    gated.ROW,
    proxy.ROW,
    *titans.ROWS,
    *shifted.ROWS,
    *deconstructed.ROWS,
)
