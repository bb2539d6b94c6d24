"""Windows that move with each position: neighbourhood attention, dilated, strided and causal."""

from qna.mixers.neighborhood import attention
from qna.mixers.neighborhood.attention import (
    NeighborhoodAttention1d,
    NeighborhoodAttention2d,
    NeighborhoodAttention3d,
)

__all__ = ["ROWS", "NeighborhoodAttention1d", "NeighborhoodAttention2d", "NeighborhoodAttention3d"]

ROWS = attention.ROWS
