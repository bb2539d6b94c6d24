"""Attention of windows to windows whose place and size are learned."""

from qna.mixers.varied_size import window_attention
from qna.mixers.varied_size.window_attention import VariedSizeWindowAttention2d

__all__ = ["ROWS", "VariedSizeWindowAttention2d"]

ROWS = (window_attention.ROW,)
