"""Messages between positions: each pair has one of its own, and no softmax weighs them."""

from qna.mixers.messages import contextual
from qna.mixers.messages.contextual import WindowMessages1d, WindowMessages2d, WindowMessages3d

__all__ = ["ROWS", "WindowMessages1d", "WindowMessages2d", "WindowMessages3d"]

ROWS = contextual.ROWS
