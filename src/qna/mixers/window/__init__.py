"""Self-attention inside windows that do not overlap."""

from qna.mixers.window import shifted_window_attention, window_attention
from qna.mixers.window.shifted_window_attention import ShiftedWindowAttention2d
from qna.mixers.window.window_attention import WindowAttention2d

__all__ = ["ROWS", "ShiftedWindowAttention2d", "WindowAttention2d"]

ROWS = (window_attention.ROW, shifted_window_attention.ROW)
