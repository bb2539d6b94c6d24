"""The compiled kernels of an op, or the sentence on why they are not here."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

# how the kernels call what a tensor stores
STORAGE = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}


def load(package: str | None) -> tuple[Any, Callable[[], list[str]]]:
    """The module `_native` of an op's package, or None, and what its backend says is missing."""
    try:
        module, missing = import_module("._native", package), []
    except ImportError as error:
        module = None
        missing = [
            f"the compiled kernels are not in this installation ({error}); with a C++17 compiler (g++ or "
            "clang++), install qna again: pip install --force-reinstall --no-deps --no-cache-dir qna"
        ]
    return module, lambda: list(missing)
