"""Controls: what attention has to beat, behind the same contract."""

from qna.mixers.control import depthwise_convolution, full_attention, identity, pooling
from qna.mixers.control.depthwise_convolution import DepthwiseConvolution2d
from qna.mixers.control.full_attention import FullAttention2d
from qna.mixers.control.identity import Identity2d
from qna.mixers.control.pooling import Pooling2d

__all__ = ["ROWS", "DepthwiseConvolution2d", "FullAttention2d", "Identity2d", "Pooling2d"]

ROWS = (depthwise_convolution.ROW, pooling.ROW, full_attention.ROW, identity.ROW)
