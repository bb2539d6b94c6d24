"""Titans: a memory that learns while it is read, alone and beside attention."""

from qna.mixers.causal.titans import beside, context, memory
from qna.mixers.causal.titans.beside import MemoryAsGate1d, MemoryAsLayer1d
from qna.mixers.causal.titans.context import MemoryAsContext1d
from qna.mixers.causal.titans.memory import NeuralMemory1d

__all__ = ["ROWS", "MemoryAsContext1d", "MemoryAsGate1d", "MemoryAsLayer1d", "NeuralMemory1d"]

ROWS = (memory.ROW, context.ROW, *beside.ROWS)
