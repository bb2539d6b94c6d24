"""What every op owes on every backend that runs here: one test for all rows of `OPS`.

Triton's kernels run by its interpreter, in a process that the last test starts.
"""

import os
import subprocess
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from qna._core.errors import NoBackend
from qna.bench.measure.memory import RETURN_FREED_BLOCKS
from qna.ops import OPS, register_flop_formulas
from qna.ops._shared.triton.runtime import INTERPRETED
from tests.ops.equality import assert_equals_reference, leaf, run
from tests.ops.interpreter import in_a_process_of_its_own, outside, silent

pytestmark = silent

# of the backends that the interpreter does not concern nothing new is learned beside it
KERNELS = [
    (row, backend)
    for row in OPS
    for backend in row.backends
    if backend.opaque and not backend.missing() and (backend.name == "triton") == INTERPRETED
]


def name(argument):
    return argument.name.rpartition(".")[2]


kernels = pytest.mark.parametrize(("row", "backend"), KERNELS, ids=name)
# the interpreter takes its time: one case tells whether a kernel is right at all
QUICK = "1d" if INTERPRETED else "2d-3x3"
CASES = [
    pytest.param(*kernel, case, marks=[pytest.mark.long] if INTERPRETED and case.name != QUICK else [])
    for kernel in KERNELS
    for case in kernel[0].cases
]


def quick(row):
    """An op of sequences alone has no map of two axes: its first case."""
    return next((case for case in row.cases if case.name == QUICK), row.cases[0])


def inputs_of(case, backend, dtype=torch.float32):
    return case.make(dtype, backend.device or "cpu")


@pytest.mark.parametrize(("row", "backend", "case"), CASES, ids=name)
def test_values_and_gradients_equal_the_reference(row, backend, case):
    try:
        assert_equals_reference(row, case, inputs_of(case, backend), backend.name)
    except NoBackend as error:
        # the one that takes a few windows alone; tests of its own tell which
        if backend.name != "cuda":
            raise
        pytest.skip(str(error))


@kernels
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_rounds_like_the_reference(row, backend, dtype):
    assert_equals_reference(row, quick(row), inputs_of(quick(row), backend, dtype), backend.name)


class Calls(TorchDispatchMode):
    """The package's own ops that run, with their arguments."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "qna":
            self.calls.append((func, args))
        return func(*args, **(kwargs or {}))


@kernels
@pytest.mark.parametrize("training", [True, False])
def test_opcheck_of_every_op_that_runs(row, backend, training):
    inputs = inputs_of(quick(row), backend)
    leaves = {k: leaf(t) if training else t for k, t in inputs.items()}
    with Calls() as seen:
        out = row.function(**leaves, **quick(row).window, backend=backend.name)
        if training:
            out.sum().backward()
    assert len(seen.calls) == 1 + training
    for op, arguments in seen.calls:
        differentiable = training and not op.name().endswith("_backward")
        given = [
            (leaf(t) if differentiable else t.detach()) if isinstance(t, torch.Tensor) else t
            for t in arguments
        ]
        tests = None if differentiable or not training else ("test_schema", "test_faketensor")
        torch.library.opcheck(op, given, **({"test_utils": tests} if tests else {}))


@kernels
def test_two_runs_agree_bit_for_bit(row, backend):
    case = quick(row)
    first, second = (run(row, inputs_of(case, backend), case.window, backend.name) for _ in range(2))
    for key, t in first.items():
        assert torch.equal(t, second[key]), key


@kernels
def test_a_second_derivative_is_refused_aloud(row, backend):
    leaves = {k: leaf(t) for k, t in inputs_of(quick(row), backend).items()}
    out = row.function(**leaves, **quick(row).window, backend=backend.name)
    (grad,) = torch.autograd.grad(out.square().sum(), next(iter(leaves.values())), create_graph=True)
    words = (
        f"backend='{backend.name}' of {row.name} has no second derivative: call it with backend=\"reference\""
    )
    with pytest.raises(NotImplementedError, match=words):
        grad.sum().backward()


@kernels
def test_flops_are_those_of_the_row(row, backend):
    register_flop_formulas()
    leaves = {k: leaf(t) for k, t in inputs_of(quick(row), backend).items()}
    counted = []
    with FlopCounterMode(display=False) as counter:
        out = row.function(**leaves, **quick(row).window, backend=backend.name)
        counted.append(counter.get_total_flops())
        out.sum().backward()
        counted.append(counter.get_total_flops() - counted[0])
    assert tuple(counted) == row.flops(quick(row))


def peaks(row, backend, *sizes):
    """(bytes at the peak of a step, bytes of its output) by map's size and windows, "362x3"."""
    command = [sys.executable, "-m", "tests.ops.peak", row.name, backend.name, *sizes]
    env = {**os.environ, **RETURN_FREED_BLOCKS}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    return [tuple(map(int, line.split())) for line in done.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="numpy's memory is not the kernels'")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("row", "backend"), [k for k in KERNELS if k[1].device == "cpu"], ids=name)
def test_memory_grows_with_the_map_and_not_with_the_window(row, backend):
    (small, output), (large, _), (wide, _) = peaks(row, backend, "362x3", "512x3", "362x11")
    assert large <= 2.1 * small
    assert wide <= 1.1 * small
    # the output, its gradient, those of the inputs and what is kept are a few maps
    assert small <= 5 * output


@pytest.mark.parametrize("row", OPS, ids=name)
def test_rows_are_whole(row):
    assert len({backend.name for backend in row.backends}) == len(row.backends)
    assert not row.reference.missing()
    assert row.reference.device is None
    assert not row.reference.opaque
    assert all(backend.device for backend in row.backends if backend.opaque)
    assert len({case.name for case in row.cases}) == len(row.cases)


@outside
def test_triton_by_its_interpreter():
    in_a_process_of_its_own(__file__, "not long")


@outside
@pytest.mark.long
def test_long_part_of_triton_by_its_interpreter():
    in_a_process_of_its_own(__file__, "long")
