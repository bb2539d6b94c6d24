"""torch's flop counter sees the kernels, without being loaded for those who do not count."""

import subprocess
import sys

import pytest

COUNT = """
case = next(c for c in CASES if c.name == "2d-two-queries-d8")
with FlopCounterMode(display=False) as counter:
    learned_query_attention(**case.make(), backend="cpu")
print(counter.get_total_flops())
"""
COUNTER = "from torch.utils.flop_counter import FlopCounterMode"
QNA = "from qna.ops import *; from qna.ops.learned_query.cases import CASES"


@pytest.mark.parametrize("lines", [[COUNTER, QNA], [QNA, COUNTER, "register_flop_formulas()"]])
def test_the_counter_sees_the_kernels(lines):
    run = subprocess.run(
        [sys.executable, "-c", "\n".join([*lines, COUNT])], capture_output=True, text=True, check=True
    )
    # images, windows, taps, heads, and a denominator and a share per query beside the value's channels
    assert int(run.stdout) == 2 * 2 * 15 * 15 * 9 * 8 * (2 * 2 + 8)
