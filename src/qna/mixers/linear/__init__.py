"""Attention whose cost is linear in the map, and the convolutions that bring its context near again."""

from qna.mixers.linear import attention, concentration
from qna.mixers.linear.attention import LinearAttention2d
from qna.mixers.linear.concentration import LocalConcentration2d

__all__ = ["ROWS", "LinearAttention2d", "LocalConcentration2d"]

ROWS = (attention.ROW, concentration.ROW)
