"""Self-attention inside windows that do not overlap."""

from qna.mixers.window import window_attention
from qna.mixers.window.window_attention import WindowAttention2d

__all__ = ["ROWS", "WindowAttention2d"]

ROWS = (window_attention.ROW,)
