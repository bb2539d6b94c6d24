"""Sequences of tokens: text of files, and sequences that are drawn to ask for what was read long before."""

from qna.data.text.batch import UNSCORED, TokenBatch
from qna.data.text.corpus import STDLIB, Sequences, TokenData, TokenWindows, is_drawn, load_drawn, load_text
from qna.data.text.long_context import KINDS, Copy, Drawn, Induction, Needle, Recall, kind_of
from qna.data.text.tokens import Bytes, FileTokens, Tokens, tokens_told

__all__ = [
    "KINDS",
    "STDLIB",
    "UNSCORED",
    "Bytes",
    "Copy",
    "Drawn",
    "FileTokens",
    "Induction",
    "Needle",
    "Recall",
    "Sequences",
    "TokenBatch",
    "TokenData",
    "Tokens",
    "TokenWindows",
    "is_drawn",
    "kind_of",
    "load_drawn",
    "load_text",
    "tokens_told",
]
