"""Titans: a memory that learns while it is read, alone and beside attention."""

from qna.mixers.causal.titans import memory
from qna.mixers.causal.titans.memory import NeuralMemory1d

__all__ = ["ROWS", "NeuralMemory1d"]

ROWS = (memory.ROW,)
