"""Tests that run Triton kernels in Python: Triton reads TRITON_INTERPRET when it is imported.

So they run in a process of their own, which tests outside of it start.
"""

import os
import subprocess
import sys

import pytest

from qna.ops._shared.triton import runtime

inside = pytest.mark.skipif(not runtime.INTERPRETED, reason="runs in a process with TRITON_INTERPRET=1")
outside = pytest.mark.skipif(runtime.INTERPRETED, reason="starts the process with TRITON_INTERPRET=1")

# numpy warns of what cards compute without a word: the kernels look for infinite sums, and invert the empty
# ones of windows beyond the map, which are not stored; sums that nothing is known of are NaN
silent = pytest.mark.filterwarnings(
    "ignore:(divide by zero|overflow|invalid value|All-NaN slice) encountered:RuntimeWarning"
)


def in_a_process_of_its_own(file, expression):
    """Run the tests of a file that the marker expression selects, by the interpreter."""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", expression, file]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout
