"""Arithmetic of the kernels, so that torch's `FlopCounterMode` sees through them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

_formulas: list[tuple[Any, Callable[..., int]]] = []


def register_flop_formulas() -> None:
    """Tell `torch.utils.flop_counter.FlopCounterMode` what the kernels cost.

    Done on import where the counter's module is loaded already; otherwise call it before making a counter.
    (Importing that module here would load triton for everyone who has it.)
    """
    from torch.utils.flop_counter import flop_registry, register_flop_formula

    for op, formula in _formulas:
        if op not in flop_registry:
            register_flop_formula(op, get_raw=True)(formula)


def count(op: Any, formula: Callable[..., int]) -> None:
    """Name an op and its FLOPs by its arguments, which come as tensors."""
    _formulas.append((op, formula))
    if "torch.utils.flop_counter" in sys.modules:
        register_flop_formulas()
