"""The inputs that the op's backends judge, in this version and in older ones that are measured beside it.

This is the one place where benchmarks look something up that moved between versions. All else that they
import of qna in a process with another commit (`qna.bench.measure.worker`) is public and in both.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from qna.ops import learned_query


def op_inputs(scores: Tensor, value: Tensor, bias: Tensor, weight: Tensor) -> Any:
    """What `Backend.reasons` takes, for windows at every position."""
    op: Any = learned_query
    arguments = {"stride": 1, "padding": "same", "dilation": 1}
    if hasattr(op.Inputs, "apart"):
        return op.Inputs.apart(scores, value, bias, weight, arguments)
    # before inputs were checked where they are made
    window = op.Window.over(scores.shape[1:-2], bias.shape[:-2], **arguments)
    return op.Inputs(scores, value, bias, weight, window)
