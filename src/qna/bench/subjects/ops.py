"""The ops of this library as subjects: their rows, cases, and what their backends judge.

This is the one place where benchmarks look something up that moved between versions. All else that they
import of qna in a process with another commit (`qna.bench.measure.worker`) is public and in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from qna import ops
from qna._core.errors import check_choice
from qna.ops import learned_query
from qna.ops.learned_query.cases import CASES

LEARNED_QUERY = "learned_query"


def op_rows() -> dict[str, Any]:
    """Rows of `qna.ops.OPS` by the name of the op's folder.

    Each has `name`, `function`, `backends` (fastest first, the reference last), `cases` and `tune`. A version
    without rows has one op, whose row is made here.
    """
    rows: Sequence[Any] | None = getattr(ops, "OPS", None)
    if rows is None:
        module: Any = learned_query
        rows = [
            SimpleNamespace(
                name=module.NAME,
                function=ops.learned_query_attention,
                backends=module.BACKENDS,
                cases=CASES,
                tune=None,
            )
        ]
    # what has no windows is nothing to compare over windows
    return {
        row.function.__module__.split(".")[2]: row
        for row in rows
        if any(hasattr(case, "kernel") for case in row.cases)
    }


def op_row(name: str) -> Any:
    """The row of an op.

    Raises:
        UnknownName: with the nearest names.
    """
    rows = op_rows()
    return rows[check_choice("op", name, rows)]


def case_of(row: Any, **sizes: Any) -> Any:
    """The op's first case with two space axes, which is plain, with those of `sizes` that it has."""
    plain = next(case for case in row.cases if len(case.space) == 2)
    has = {f.name for f in fields(plain)}
    return replace(plain, **{name: size for name, size in sizes.items() if name in has})


def op_inputs(scores: Tensor, value: Tensor, bias: Tensor, weight: Tensor) -> Any:
    """What `Backend.reasons` takes of learned-query attention, for windows at every position."""
    arguments = {"stride": 1, "padding": "same", "dilation": 1}
    op: Any = learned_query
    if hasattr(op.Inputs, "apart"):
        return op.Inputs.apart(scores, value, bias, weight, arguments)
    # before inputs were checked where they are made
    window = op.Window.over(scores.shape[1:-2], bias.shape[:-2], **arguments)
    return op.Inputs(scores, value, bias, weight, window)
