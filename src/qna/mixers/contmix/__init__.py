"""Kernels that a context decides position by position, and large static ones that are merged of many."""

from qna.mixers.contmix import dilated_reparam, mixing
from qna.mixers.contmix.dilated_reparam import DilatedReparam2d
from qna.mixers.contmix.mixing import ContMix2d

__all__ = ["ROWS", "ContMix2d", "DilatedReparam2d"]

ROWS = (mixing.ROW, dilated_reparam.ROW)
