"""Windows whose queries come from the whole image: the same for all windows of a map."""

from qna.mixers.global_context import attention
from qna.mixers.global_context.attention import GlobalContextAttention2d
from qna.mixers.global_context.query import GlobalQuery

__all__ = ["ROWS", "GlobalContextAttention2d", "GlobalQuery"]

ROWS = (attention.ROW,)
