"""Positions mixed by an MLP of them, whose outcome multiplies a linear map of the input."""

from qna.mixers.gating import mixer_gating
from qna.mixers.gating.mixer_gating import MixerGating2d

__all__ = ["ROWS", "MixerGating2d"]

ROWS = (mixer_gating.ROW,)
