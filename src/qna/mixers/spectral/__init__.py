"""Filters of a whole map, learned frequency by frequency."""

from qna.mixers.spectral import gating
from qna.mixers.spectral.gating import SpectralGating2d

__all__ = ["ROWS", "SpectralGating2d"]

ROWS = (gating.ROW,)
