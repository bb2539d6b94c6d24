"""Attention to the regions of a map that a coarse first look finds worth it."""

from qna.mixers.routing import bi_level
from qna.mixers.routing.bi_level import BiLevelRoutingAttention2d

__all__ = ["ROWS", "BiLevelRoutingAttention2d"]

ROWS = (bi_level.ROW,)
