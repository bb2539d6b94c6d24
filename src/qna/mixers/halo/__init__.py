"""Attention of blocks of queries to one window that they share: the block and a halo around it."""

from qna.mixers.halo import halo_attention
from qna.mixers.halo.halo_attention import HaloAttention2d

__all__ = ["ROWS", "HaloAttention2d"]

ROWS = (halo_attention.ROW,)
