"""torch's flop counter sees the kernels, without being loaded for those who do not count."""

import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from qna.ops import register_flop_formulas
from qna.ops.learned_query.cases import BY_NAME

COUNT = """
case = next(c for c in CASES if c.name == "2d-two-queries-d8")
with FlopCounterMode(display=False) as counter:
    learned_query_attention(**case.make(), backend="cpu")
print(counter.get_total_flops())
"""
COUNTER = "from torch.utils.flop_counter import FlopCounterMode"
QNA = "from qna.ops import *; from qna.ops.learned_query.cases import CASES"


@pytest.mark.parametrize(
    ("name", "keeps_lse"), [("cpu", False), ("triton", True), ("triton_inference", False)]
)
def test_every_op_has_a_formula(name, keeps_lse):
    """Also those that this machine cannot run: what they cost is known by their shapes."""
    register_flop_formulas()
    scores, value, bias, weight = (t.to("meta") for t in BY_NAME["2d-3x3"].make().values())
    with FlopCounterMode(display=False) as counter:
        result = getattr(torch.ops.qna, f"learned_query_{name}")(
            scores, value, bias, weight, [1, 1, 1, 1, 1, 1, 7, 15, 1, 1]
        )
    assert isinstance(result, torch.Tensor) != keeps_lse
    assert counter.get_total_flops() == 2 * 2 * 7 * 15 * 9 * 3 * (2 * 2 + 5)


@pytest.mark.parametrize("lines", [[COUNTER, QNA], [QNA, COUNTER, "register_flop_formulas()"]])
def test_the_counter_sees_the_kernels(lines):
    run = subprocess.run(
        [sys.executable, "-c", "\n".join([*lines, COUNT])], capture_output=True, text=True, check=True
    )
    # images, windows, taps, heads, and a denominator and a share per query beside the value's channels
    assert int(run.stdout) == 2 * 2 * 15 * 15 * 9 * 8 * (2 * 2 + 8)
