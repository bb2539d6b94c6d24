"""Token mixers: modules (B, *space, C) -> (B, *space', C'), one mechanism per file, grouped in families."""

from qna.mixers import learned_query, window
from qna.mixers.learned_query import QnA1d, QnA2d, QnA3d, QnAPool2d
from qna.mixers.window import WindowAttention2d

__all__ = ["MIXERS", "QnA1d", "QnA2d", "QnA3d", "QnAPool2d", "WindowAttention2d"]

# every mixer by its class name: a family's list is all that a new one is added to
MIXERS = {
    example.build.__name__: example for family in (learned_query, window) for example in family.EXAMPLES
}
