"""Tests that run the Triton kernels in Python: Triton reads TRITON_INTERPRET when it is imported.

So they run in a process of their own, which tests outside of it start.
"""

import os
import subprocess
import sys

import pytest
import torch

from qna.ops.learned_query.triton import runtime

inside = pytest.mark.skipif(not runtime.INTERPRETED, reason="runs in a process with TRITON_INTERPRET=1")
outside = pytest.mark.skipif(runtime.INTERPRETED, reason="starts the process with TRITON_INTERPRET=1")

# numpy warns of what cards compute without a word: the kernels look for infinite sums, and invert the empty
# ones of windows beyond the map, which are not stored; sums that nothing is known of are NaN
silent = pytest.mark.filterwarnings(
    "ignore:(divide by zero|overflow|invalid value|All-NaN slice) encountered:RuntimeWarning"
)


def by_name(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda c: c.name)


def heads_fastest(inputs):
    """Scores and value as the layers make them: both in one row per position, the channels as (d, h)."""
    scores, value = inputs["scores"], inputs["value"]
    row = torch.cat([value.transpose(-1, -2).flatten(-2), scores.flatten(-2)], -1)
    value, scores = row.split([value[0].flatten(-2).shape[-1], scores[0].flatten(-2).shape[-1]], -1)
    shape = inputs["value"].shape
    value = value.unflatten(-1, (shape[-1], shape[-2])).transpose(-1, -2)
    return {**inputs, "scores": scores.unflatten(-1, inputs["scores"].shape[-2:]), "value": value}


def span(inputs):
    """A bias too far below the largest for a factor of it, and scores that make up for it."""
    inputs["bias"][1, 1] = 0
    inputs["bias"][0, 0] = -200
    inputs["scores"][:, 2, 2] = 190
    inputs["scores"][:, 3:, 3:] = -30


def far_below(inputs):
    inputs["scores"][:, :, 6:] -= 1000


def far_above(inputs):
    inputs["scores"][:, :, 5:] += 1000


def one_far_above(inputs):
    inputs["scores"][:, 3, 7] = 1e30


def in_a_process_of_its_own(file, expression):
    """Run the tests of a file that the marker expression selects, by the interpreter."""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", expression, file]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout
