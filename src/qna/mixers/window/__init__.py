"""Self-attention inside windows that do not overlap."""

from qna.mixers.row import MixerExample
from qna.mixers.window.window_attention import WindowAttention2d

__all__ = ["EXAMPLES", "WindowAttention2d"]

EXAMPLES = (MixerExample(WindowAttention2d, (5, 7), arguments={"num_heads": 2, "window_size": 3}),)
