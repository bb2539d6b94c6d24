"""The neighbourhood and the pooled map in one softmax, and the cosine attention of a whole map beside it."""

from qna.mixers.aggregated import attention, length_scaled
from qna.mixers.aggregated.attention import AggregatedAttention2d
from qna.mixers.aggregated.length_scaled import LengthScaledAttention2d

__all__ = ["ROWS", "AggregatedAttention2d", "LengthScaledAttention2d"]

ROWS = (attention.ROW, length_scaled.ROW)
