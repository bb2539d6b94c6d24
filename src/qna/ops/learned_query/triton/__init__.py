"""Learned-query attention on a GPU: Triton kernels, their plans, and the file of tile sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from qna.ops.learned_query.cases import Case
from qna.ops.learned_query.triton.backend import BACKEND

__all__ = ["BACKEND", "tune_tiles"]


def tune_tiles(case: Case, dtype: torch.dtype, path: Path, progress: Callable[[Any], None]) -> None:
    """Measure tiles for a case on the card at hand, and put the fastest into the file at `path`."""
    from qna.ops.learned_query.triton import tiles, tune

    tiles.save(tune.tune([case], dtype, BACKEND.device or "cuda", progress=progress), path)
