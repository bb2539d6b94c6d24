"""Sequences of tokens: text of files, and sequences that are drawn to ask for what was read long before."""

from qna.data.text.batch import UNSCORED, TokenBatch
from qna.data.text.long_context import KINDS, Copy, Drawn, Induction, Needle, Recall, kind_of

__all__ = [
    "KINDS",
    "UNSCORED",
    "Copy",
    "Drawn",
    "Induction",
    "Needle",
    "Recall",
    "TokenBatch",
    "kind_of",
]
