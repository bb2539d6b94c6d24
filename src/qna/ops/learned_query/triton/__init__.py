"""Learned-query attention on a GPU: Triton kernels, their plans, and the table of tile sizes."""

from qna.ops.learned_query.triton.backend import BACKEND, DEVICE, DTYPES

__all__ = ["BACKEND", "DEVICE", "DTYPES"]
