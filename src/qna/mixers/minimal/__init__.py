"""Attention with fewer matrices than four: collapsed, symmetric, without values."""

from qna.mixers.minimal import attention
from qna.mixers.minimal.attention import MinimalAttention1d, MinimalAttention2d

__all__ = ["ROWS", "MinimalAttention1d", "MinimalAttention2d"]

ROWS = attention.ROWS
