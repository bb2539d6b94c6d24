"""Context of growing reach, gathered by convolutions, that multiplies each position's query."""

from qna.mixers.focal import modulation
from qna.mixers.focal.modulation import FocalModulation2d

__all__ = ["ROWS", "FocalModulation2d"]

ROWS = (modulation.ROW,)
