"""The CUDA backend on a GPU."""

import shutil
import subprocess
import sys

import pytest
import torch

from qna.ops import learned_query_attention
from qna.ops.learned_query.cases import Case
from qna.ops.learned_query.cuda.backend import BACKEND
from tests.ops.learned_query.cuda.cases import LAYERS
from tests.ops.learned_query.kernels import NAMES, assert_equals_reference, run
from tests.ops.learned_query.triton.interpreter import (
    far_above,
    far_below,
    heads_fastest,
    one_far_above,
    span,
)
from tests.ops.tolerance import assert_close_to_oracle

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(bool(BACKEND.missing()), reason="; ".join(BACKEND.missing()) or "there"),
]

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
STAGES = tuple(
    Case(f"stage-{size}-k{kernel}", (size, size), (kernel, kernel), heads=heads, head_dim=8)
    for size, heads in ((56, 8), (28, 16), (14, 32), (7, 64))
    for kernel in (3, 5, 7)
)


def layer_layout(case, dtype):
    return {k: t.to("cuda") for k, t in heads_fastest(case.make(dtype)).items()}


def leaves(case, dtype):
    return {k: t.detach().requires_grad_() for k, t in layer_layout(case, dtype).items()}


def attend(scores, value, bias, weight):
    return learned_query_attention(scores, value, bias, weight, backend="cuda")


@pytest.mark.parametrize(
    "layout", [layer_layout, lambda c, dtype: c.make(dtype, "cuda")], ids=["layer", "plain"]
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", [*LAYERS, *STAGES], ids=lambda c: c.name)
def test_equals_the_reference(case, dtype, layout):
    assert_equals_reference(case, layout(case, dtype), "cuda")


@pytest.mark.parametrize(
    ("change", "size"), [(far_below, 1000), (far_above, 1000), (span, 200), (one_far_above, 1)]
)
def test_scores_out_of_range_of_a_tile(change, size):
    case = Case("far", (30, 40), (3, 3), heads=8, head_dim=8)
    inputs = case.make()
    change(inputs)
    expected = run({k: t.double() for k, t in inputs.items()}, case.window, "reference", torch.float32)
    ours = run({k: t.cuda() for k, t in inputs.items()}, case.window, "cuda")
    scale = size * max(float(t.abs().max()) for t in expected.values())
    for name, e in expected.items():
        count = case.terms * (ours["out"].numel() if name in ("bias", "weight") else 1)
        assert_close_to_oracle(ours[name].cpu(), e, terms=count, scale=scale, name=name)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_two_runs_agree_bit_for_bit(dtype):
    # more tiles than blocks that keep sums, so that blocks add up several
    case = Case("many-tiles", (96, 96), (5, 5), batch=32, heads=8, head_dim=8)
    inputs = layer_layout(case, dtype)
    first, second = (run(inputs, {}, "cuda") for _ in range(2))
    for name in NAMES:
        assert torch.equal(first[name], second[name]), name


def test_a_map_of_more_than_two_to_the_31_elements():
    """The last batch item lies beyond 32-bit offsets, and equals the same item alone."""
    size, channels, pairs = 4096, 64, 16
    needed = 12 * 2 * 3 * size * size * (channels + pairs)
    if torch.cuda.mem_get_info()[0] < needed:
        pytest.skip(f"needs {needed / 2**30:.0f} GiB of free GPU memory")
    row = torch.randn(3, size, size, channels + pairs, device="cuda", dtype=torch.bfloat16)
    assert row.numel() > 2**31
    tables = torch.randn(2, 3, 3, 2, 8, device="cuda")

    def both(row):
        row = row.detach().requires_grad_()
        value, scores = row.split([channels, pairs], -1)
        value = value.unflatten(-1, (8, 8)).transpose(-1, -2)
        out = attend(scores.unflatten(-1, (2, 8)), value, *tables)
        out.backward(torch.ones_like(out))
        return out.detach(), row.grad

    out, grad = both(row)
    for whole, alone in zip((out, grad), both(row[2:]), strict=True):
        assert torch.equal(whole[2:], alone)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_torch_compile(mode):
    inputs = leaves(STAGES[0], torch.float32)

    def layer(scores, value, bias, weight):
        return attend(scores * 2, value, bias, weight).relu()

    compiled = torch.compile(layer, fullgraph=True, mode=mode)
    for _ in range(3):  # reduce-overhead records a CUDA graph on the second call
        actual = torch.autograd.grad(compiled(**inputs).sum(), list(inputs.values()))
    expected = torch.autograd.grad(layer(**inputs).sum(), list(inputs.values()))
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e)


def test_cuda_graph_capture():
    inputs = leaves(STAGES[0], torch.bfloat16)

    def step():
        return torch.autograd.grad(attend(**inputs).float().sum(), list(inputs.values()))

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        for t in inputs.values():
            t.mul_(0.5)
    graph.replay()
    for a, e in zip(captured, step(), strict=True):
        assert torch.equal(a, e)


def test_on_a_stream_and_a_device_that_are_not_current():
    last = torch.cuda.device_count() - 1
    inputs = {k: t.to(f"cuda:{last}") for k, t in layer_layout(STAGES[0], torch.float32).items()}
    expected = attend(**{k: t.to("cuda:0") for k, t in inputs.items()})
    with torch.cuda.stream(torch.cuda.Stream(last)):
        torch.cuda.current_stream(last).wait_stream(torch.cuda.default_stream(last))
        with torch.cuda.device(0):
            actual = attend(**inputs)
    torch.cuda.synchronize(last)
    assert torch.equal(actual.cpu(), expected.cpu())


def test_the_compute_sanitizer_finds_nothing():
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("compute-sanitizer, of the CUDA toolkit, is not on the path")
    program = [sys.executable, "-m", "tests.ops.learned_query.cuda.short_run"]
    for tool in ("memcheck", "racecheck", "synccheck", "initcheck"):
        command = [sanitizer, "--tool", tool, "--error-exitcode", "9", *program]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
