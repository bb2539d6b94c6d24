"""Self-attention in the place of a convolution: every position attends the window around it."""

from qna.mixers.stand_alone import stand_alone_attention
from qna.mixers.stand_alone.stand_alone_attention import StandAloneAttention2d

__all__ = ["ROWS", "StandAloneAttention2d"]

ROWS = (stand_alone_attention.ROW,)
