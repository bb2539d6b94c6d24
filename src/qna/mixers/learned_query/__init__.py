"""Attention with learned queries that all windows share: the QnA layers."""

from qna.mixers.learned_query.pool import QnAPool2d
from qna.mixers.learned_query.qna import QnA, QnA1d, QnA2d, QnA3d
from qna.mixers.row import MixerExample

__all__ = ["EXAMPLES", "QnA", "QnA1d", "QnA2d", "QnA3d", "QnAPool2d"]

EXAMPLES = (
    MixerExample(QnA1d, (9,), arguments={"num_heads": 2, "kernel_size": 3}),
    MixerExample(QnA2d, (5, 7), arguments={"num_heads": 2, "kernel_size": 3}),
    MixerExample(QnA3d, (3, 4, 5), arguments={"num_heads": 2, "kernel_size": (1, 3, 3)}),
    MixerExample(QnAPool2d, (5, 7), arguments={"num_heads": 2, "map_size": (4, 7)}, out_space=()),
)
