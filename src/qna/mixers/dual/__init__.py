"""Dual attention: of positions to positions, and of channels to channels, each added to the map by a gate."""

from qna.mixers.dual import channel, position
from qna.mixers.dual.channel import ChannelAttention2d, ChannelAttention3d
from qna.mixers.dual.position import PositionAttention2d, PositionAttention3d

__all__ = [
    "ROWS",
    "ChannelAttention2d",
    "ChannelAttention3d",
    "PositionAttention2d",
    "PositionAttention3d",
]

ROWS = (*position.ROWS, *channel.ROWS)
