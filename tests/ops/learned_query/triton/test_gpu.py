"""The Triton backend on a GPU."""

import shutil
import subprocess
import sys

import pytest
import torch

from qna.ops import learned_query_attention
from qna.ops._shared.triton.runtime import INTERPRETED
from qna.ops.learned_query.cases import CASES, Case
from qna.ops.learned_query.triton import windows_plan
from tests.ops.learned_query.kernels import NAMES, assert_equals_reference, run
from tests.ops.tolerance import assert_close_to_oracle

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
    pytest.mark.skipif(INTERPRETED, reason="TRITON_INTERPRET is set"),
]

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
STAGE = Case("stage", (56, 56), (3, 3), heads=8, head_dim=8)
# what the kernels by matrix products take in bf16: patches cut by the border, other heads, windows, queries
PRODUCTS = (
    STAGE,
    Case("stage-k5", (30, 45), (5, 5), heads=16, head_dim=8),
    Case("stage-k7", (28, 28), (7, 7), heads=8, head_dim=16, queries=1),
    Case("stage-k13", (28, 19), (13, 13), heads=4, head_dim=8),
    Case("four-queries", (20, 30), (3, 3), heads=6, head_dim=8, queries=4),
    Case("even-unpadded", (21, 22), (4, 6), heads=4, head_dim=8, window={"padding": 1}),
    Case("row", (257,), (9,), heads=8, head_dim=8),
    Case("planes", (2, 17, 13), (1, 3, 3), heads=2, head_dim=32),
)


def layer_layout(case, dtype):
    """Inputs as the layers make them: scores and value in one row per position, heads fastest."""
    inputs = case.make(dtype, "cuda")
    value, scores = inputs["value"].transpose(-1, -2).flatten(-2), inputs["scores"].flatten(-2)
    row = torch.cat([value, scores], -1)
    value, scores = row.split([value.shape[-1], scores.shape[-1]], -1)
    value = value.unflatten(-1, (case.head_dim, case.heads)).transpose(-1, -2)
    return {**inputs, "value": value, "scores": scores.unflatten(-1, (case.queries, case.heads))}


def leaves(case, dtype):
    return {k: t.detach().requires_grad_() for k, t in layer_layout(case, dtype).items()}


def attend(scores, value, bias, weight):
    return learned_query_attention(scores, value, bias, weight, backend="triton")


@pytest.mark.parametrize(
    "layout", [layer_layout, lambda c, dtype: c.make(dtype, "cuda")], ids=["layer", "plain"]
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", [*CASES, *PRODUCTS], ids=lambda c: c.name)
def test_equals_the_reference(case, dtype, layout):
    assert_equals_reference(case, layout(case, dtype), "triton")


@pytest.mark.parametrize("change", [1000.0, -1000.0])
def test_windows_far_from_their_neighbours_in_bf16(change):
    """The kernels by matrix products give such a call up, and others do it again."""
    case = Case("far", (20, 24), (3, 3), heads=4, head_dim=8)
    inputs = layer_layout(case, torch.bfloat16)
    inputs["scores"][:, 10:14, 7:9] += change
    assert_equals_reference(case, inputs, "triton")


@pytest.mark.parametrize("change", [1000.0, -1000.0, float("-inf")])
def test_windows_far_from_their_neighbours(change):
    """Programs that take their windows one by one, beside programs that do not."""
    inputs = layer_layout(STAGE, torch.float32)
    inputs["scores"][:, 20:30, 7:9] += change
    double = {k: t.double() for k, t in inputs.items()}
    expected = learned_query_attention(**double, backend="reference")
    # a score of 1000 is known to eps * 1000, and so is its exponential, relatively
    scale = 1000 * float(inputs["value"].abs().max() * inputs["weight"].abs().max())
    assert_close_to_oracle(attend(**inputs), expected, terms=STAGE.taps * STAGE.queries, scale=scale)


def test_it_is_what_none_means():
    inputs = layer_layout(STAGE, torch.float32)
    assert torch.equal(learned_query_attention(**inputs), attend(**inputs))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_two_runs_agree_bit_for_bit(dtype):
    # more blocks than rows of partial sums, so that programs add up several
    case = Case("many-blocks", (96, 96), (5, 5), batch=32, heads=8, head_dim=8)
    inputs = layer_layout(case, dtype)
    first, second = (run(inputs, {}, "triton") for _ in range(2))
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


def test_memory_grows_with_the_map_and_not_with_the_window():
    def peak(size, kernel):
        inputs = leaves(Case("", (size, size), (kernel, kernel), heads=8, head_dim=8), torch.bfloat16)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        attend(**inputs).sum().backward()
        return torch.cuda.max_memory_allocated() - before

    peak(64, 3)  # what is allocated once
    # partial sums of bias and weight: at most so many, whatever the map
    partial = 2 * 4 * windows_plan.PARTIAL_SUMS
    assert peak(512, 3) <= 4.2 * peak(256, 3) + partial
    assert peak(256, 11) <= 1.1 * peak(256, 3) + partial


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_torch_compile(mode):
    inputs = leaves(STAGE, torch.float32)

    def layer(scores, value, bias, weight):
        return attend(scores * 2, value, bias, weight).relu()

    compiled = torch.compile(layer, fullgraph=True, mode=mode)
    for _ in range(3):  # reduce-overhead records a CUDA graph on the second call
        actual = torch.autograd.grad(compiled(**inputs).sum(), list(inputs.values()))
    expected = torch.autograd.grad(layer(**inputs).sum(), list(inputs.values()))
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e)


def test_cuda_graph_capture():
    inputs = leaves(STAGE, torch.bfloat16)

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


def test_autocast():
    x = torch.randn(2, 14, 14, 32, device="cuda")
    project = torch.nn.Linear(32, 64 + 16, device="cuda")
    tables = [torch.randn(3, 3, 2, 8, device="cuda", requires_grad=True) for _ in range(2)]
    with torch.autocast("cuda", torch.bfloat16):
        value, scores = project(x).split([64, 16], -1)
        out = attend(scores.unflatten(-1, (2, 8)), value.unflatten(-1, (8, 8)).transpose(-1, -2), *tables)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert tables[0].grad.dtype == torch.float32
    assert project.weight.grad.isfinite().all()


def test_checkpointing():
    inputs = leaves(STAGE, torch.float32)
    kept = torch.autograd.grad(attend(**inputs).sum(), list(inputs.values()))
    out = torch.utils.checkpoint.checkpoint(attend, *inputs.values(), use_reentrant=False)
    for a, b in zip(torch.autograd.grad(out.sum(), list(inputs.values())), kept, strict=True):
        assert torch.equal(a, b)


def test_on_a_stream_and_a_device_that_are_not_current():
    last = torch.cuda.device_count() - 1
    inputs = {k: t.to(f"cuda:{last}") for k, t in layer_layout(STAGE, torch.float32).items()}
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
    program = [sys.executable, "-m", "tests.ops.learned_query.triton.short_run"]
    for tool in ("memcheck", "racecheck"):
        command = [sanitizer, "--tool", tool, "--error-exitcode", "9", *program]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
