"""Learned-query attention on a GPU, a second design: CUDA C++ that is compiled when it is first called."""

from qna.ops.learned_query.cuda.backend import BACKEND

__all__ = ["BACKEND"]
