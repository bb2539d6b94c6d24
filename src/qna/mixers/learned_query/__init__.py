"""Attention with learned queries that all windows share: the QnA layers."""

from qna.mixers.learned_query import pool, qna, upsample
from qna.mixers.learned_query.layer import ABOUT
from qna.mixers.learned_query.pool import QnAPool2d
from qna.mixers.learned_query.qna import QnA, QnA1d, QnA2d, QnA3d
from qna.mixers.learned_query.upsample import (
    QnAUpsample,
    QnAUpsample1d,
    QnAUpsample2d,
    QnAUpsample3d,
)

__all__ = [
    "ABOUT",
    "ROWS",
    "QnA",
    "QnA1d",
    "QnA2d",
    "QnA3d",
    "QnAPool2d",
    "QnAUpsample",
    "QnAUpsample1d",
    "QnAUpsample2d",
    "QnAUpsample3d",
]

ROWS = (*qna.ROWS, pool.ROW, *upsample.ROWS)
