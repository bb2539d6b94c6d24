"""Arithmetic of the op: as torch's counter counts elementwise functions, none."""

from __future__ import annotations

from typing import Any


def flops_of(case: Any) -> tuple[int, int]:
    """FLOPs of a forward and of a backward of a case: what is no product is not counted."""
    return 0, 0
