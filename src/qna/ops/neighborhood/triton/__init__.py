"""Neighbourhood attention on a GPU: Triton kernels by matrix products, and their launches."""

from qna.ops.neighborhood.triton.backend import BACKEND

__all__ = ["BACKEND"]
