"""The Triton kernels compile for every generation of cards, on none: registers, shared memory, spills."""

import math
import re
import sys

import pytest
import torch

from qna.ops.learned_query import triton as backend
from qna.ops.learned_query.cases import CASES, Case
from qna.ops.learned_query.layout import empty_like
from qna.ops.learned_query.window import Window
from tests.ops.machine_code import issued, resources

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or backend.INTERPRETED,
    reason="needs triton's compiler: Linux, without TRITON_INTERPRET",
)

ARCHITECTURES = (80, 90, 100)
FLOAT32, HALF = torch.float32, torch.bfloat16


def model_stage(size, heads, kernel, head_dim=8, **window):
    name = f"{heads}x{head_dim}-k{kernel}" + "-strided" * bool(window)
    return Case(name, (size, size), (kernel, kernel), 2, 2, heads, head_dim, window)


# the stages of the published models, windows 3 to 13, and what has masks, many queries or much per head
WORKLOADS = (
    model_stage(56, 8, 3),
    model_stage(56, 8, 13),
    model_stage(28, 16, 3),
    model_stage(14, 32, 3),
    model_stage(7, 64, 3),
    model_stage(56, 16, 3, stride=2),
    model_stage(56, 6, 3, head_dim=16),
    model_stage(56, 2, 7, head_dim=32),
    model_stage(14, 4, 3, head_dim=64),
    Case("1d-four-queries", (512,), (9,), 2, 4, 4, 16),
    Case("3d-uneven", (4, 14, 14), (3, 3, 3), 2, 3, 3, 5, {"dilation": 2}),
    Case("long-heads", (14, 14), (3, 3), 2, 1, 2, 300),
)


class NoCard:
    """As much of a Triton driver as compiling asks for."""

    def __init__(self, architecture):
        self.architecture = architecture

    def get_current_target(self):
        from triton.backends.compiler import GPUTarget

        if isinstance(self.architecture, str):
            return GPUTarget("hip", self.architecture, 64)
        return GPUTarget("cuda", self.architecture, 32)

    def get_current_device(self):
        return self.architecture  # kernels are cached per device

    def get_current_stream(self, device):
        return 0


@pytest.fixture
def amd_card(monkeypatch):
    triton = pytest.importorskip("triton")
    monkeypatch.setattr(backend, "architecture", lambda device: "gfx942")
    monkeypatch.setattr(triton.runtime.driver, "_active", NoCard("gfx942"))


@pytest.fixture(params=ARCHITECTURES, ids=lambda a: f"sm_{a}")
def card(request, monkeypatch):
    triton = pytest.importorskip("triton")
    monkeypatch.setattr(backend, "architecture", lambda device: f"sm_{request.param}")
    monkeypatch.setattr(triton.runtime.driver, "_active", NoCard(request.param))
    return request.param


def launches(case, dtype, heads_fastest, weighted=True):
    """Every launch of a forward and a backward, on tensors laid out as the layers make them."""
    window = {"stride": 1, "padding": "same", "dilation": 1, **case.window}
    pairs, channels = case.queries * case.heads, case.heads * case.head_dim
    row = torch.empty(case.batch, *case.space, channels + pairs, dtype=dtype)
    value, scores = row.split([channels, pairs], -1)
    scores = scores.unflatten(-1, (case.queries, case.heads))
    if heads_fastest:
        value = value.unflatten(-1, (case.head_dim, case.heads)).transpose(-1, -2)
    else:
        value = value.unflatten(-1, (case.heads, case.head_dim))
    bias = torch.empty(*case.kernel, case.queries, case.heads)
    weight = bias if weighted else None
    window = Window.over(case.space, case.kernel, **window)
    out = empty_like(value, window.out)
    lse = torch.empty(case.batch, *window.out, case.queries, case.heads)
    grads = (torch.empty(scores.shape, dtype=dtype), empty_like(value, case.space))
    return [
        *backend.plan_forward(scores, value, bias, weight, out, lse, window),
        *backend.plan_backward(out, scores, value, bias, weight, lse, grads, window, True),
    ]


def compiled(launch):
    kernel = backend.kernels()[launch.kernel]
    return kernel.warmup(*launch.arguments, grid=(1,), **launch.constants, **launch.options)


def check(case, dtype, heads_fastest, folder, *, weighted=True):
    for launch in launches(case, dtype, heads_fastest, weighted):
        binary = compiled(launch)
        registers, spills = resources(binary, folder)
        shared = binary.metadata.shared
        line = f"{case.name} {launch.kernel} {dtype} heads_fastest={heads_fastest}: "
        line += f"{registers} registers, {shared} bytes shared, {spills} spills"
        sys.stdout.write(line + "\n")  # shown by pytest -rP
        assert spills == 0, line
        assert shared <= 48 * 1024, line
        if case in WORKLOADS and case.head_dim <= 16 and heads_fastest and launch.kernel == "attend":
            # a thread holds all channels of its heads: nothing is exchanged but one number per warp, which
            # tells if any window of the program needs its own maximum
            assert shared == 4 * launch.options["num_warps"], line


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("dtype", [HALF, torch.float16], ids=str)
def test_the_model_stage_of_the_paper(dtype, tmp_path):
    check(WORKLOADS[0], dtype, True, tmp_path)


# instructions for each number of the output, at most
@pytest.mark.parametrize(
    ("kernel", "most"),
    [(3, 55), pytest.param(5, 115, marks=pytest.mark.slow), pytest.param(7, 200, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("card", [90], indirect=True, ids=["sm_90"])
@pytest.mark.usefixtures("card")
def test_windows_of_a_thread_share_their_instructions(kernel, most, tmp_path):
    launch = launches(model_stage(56, 8, kernel), HALF, True)[1]
    rows, columns, _, groups, heads, head_dim, windows, _ = launch.constants["BLOCK"]
    numbers = math.prod((rows, columns, groups, heads, head_dim, windows)) / (
        32 * launch.options["num_warps"]
    )
    count = issued(compiled(launch), tmp_path, kernel, "triton_exact.py") / numbers
    sys.stdout.write(f"{kernel}x{kernel} attend: {count:.1f} instructions per number of the output\n")
    assert count <= most


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [FLOAT32, HALF], ids=str)
@pytest.mark.parametrize("heads_fastest", [True, False], ids=["heads-fastest", "contiguous"])
@pytest.mark.parametrize("case", WORKLOADS, ids=lambda c: c.name)
@pytest.mark.usefixtures("card")
def test_every_workload(case, heads_fastest, dtype, tmp_path):
    check(case, dtype, heads_fastest, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
@pytest.mark.usefixtures("card")
def test_every_shared_case(case, tmp_path):
    check(case, FLOAT32, True, tmp_path, weighted=False)


@pytest.mark.slow
@pytest.mark.usefixtures("amd_card")
@pytest.mark.parametrize("dtype", [FLOAT32, HALF], ids=str)
@pytest.mark.parametrize("case", WORKLOADS, ids=lambda c: c.name)
def test_every_workload_compiles_for_an_amd_card(case, dtype):
    for launch in launches(case, dtype, True):
        assembly = compiled(launch).asm["amdgcn"]
        assert re.search(r"\.vgpr_spill_count: *0\b", assembly), launch.kernel


@pytest.mark.usefixtures("card")
def test_map_sizes_share_a_kernel():
    """Sizes and strides are arguments: a new map size compiles nothing."""
    sources = {
        compiled(launch).hash
        for size in (33, 48, 64, 97)
        for launch in launches(model_stage(size, 8, 3), HALF, True)
    }
    assert len(sources) == 4
