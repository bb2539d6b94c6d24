"""The Triton kernels compile for every generation of cards, on none: registers, shared memory, spills."""

import re
import sys
from dataclasses import replace

import pytest
import torch

from qna.ops._shared.triton import runtime
from qna.ops.neighborhood.cases import BY_NAME, NeighborhoodCase
from qna.ops.neighborhood.geometry import window_axes
from qna.ops.neighborhood.triton import plan
from qna.ops.neighborhood.triton.backend import kernels
from tests.ops.machine_code import resources
from tests.ops.no_card import ARCHITECTURES, MOST_SHARED, compile_for, compiled

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or runtime.INTERPRETED,
    reason="needs triton's compiler: Linux, without TRITON_INTERPRET",
)

FLOAT32, HALF = torch.float32, torch.bfloat16
STAGE = NeighborhoodCase("2d", (56, 56), (7, 7), heads=4, head_dim=32, biased=True, extra=3)
WORKLOADS = (
    STAGE,
    NeighborhoodCase("largest-heads", (14, 14), (3, 3), heads=2, head_dim=256, biased=True, extra=5),
    NeighborhoodCase("2d-masked", (56, 56), (13, 13), heads=4, head_dim=32, masked=True),
    NeighborhoodCase("1d-long-window", (4096,), (129,), heads=4, head_dim=64, biased=True),
    NeighborhoodCase(
        "3d-video", (8, 16, 16), (4, 5, 5), heads=2, head_dim=128, extra=77, biased=True,
        options={"is_causal": (True, False, False), "dilation": (1, 2, 2), "stride": (1, 2, 2)},
    ),
    NeighborhoodCase("2d-zero", (30, 31), (9, 9), heads=2, head_dim=16, biased=True, masked=True,
                     options={"border": "zero"}),
    NeighborhoodCase("heads-of-128", (32, 32), (7, 7), head_dim=128, biased=True, extra=5, masked=True),
    NeighborhoodCase("heads-of-65", (32, 32), (7, 7), head_dim=65, biased=True, extra=5),
    NeighborhoodCase("channels-that-fill-no-tile", (14, 14), (3, 3), head_dim=17, value_dim=70, extra=5),
)  # fmt: skip


@pytest.fixture(params=ARCHITECTURES, ids="sm_{}".format)
def card(request, monkeypatch):
    compile_for(request.param, monkeypatch)


def launches(case, dtype):
    """Every launch of a forward and a backward."""
    made, axes = case.make(dtype), window_axes(case.name, case.space, **case.window)
    names = ("q", "k", "v", "bias", "extra_keys", "extra_values", "key_mask")
    given = plan.Given.of(*map(made.get, names))
    out = torch.empty_like(given.v)
    lse = torch.empty(out.shape[:-1])
    grads = [torch.empty_like(t) for t in given[:3]]
    sums = plan.partials(given, axes)
    forward = plan.forward(given, out, lse, 0.3, axes)
    return [*forward, *plan.backward(out, lse, given, lse, grads, sums, 0.3, axes)]


def allowed(launch, dtype):
    """Registers that may be stored to memory: none, but where two products of fp32 are to be multiplied.

    The compiler lets both go at once, and each holds a row of each operand: with more than 64 channels a few
    are stored on some cards, with more than 128 about a hundred.
    """
    if launch.kernel != "query_gradients" or dtype != FLOAT32:
        return 0
    width = max(launch.constants["BLOCK"][4:])
    return 0 if width <= 64 else 4 if width <= 128 else 128


def check(case, dtype, folder):
    found = launches(case, dtype)
    for launch in found:
        binary = compiled(launch, kernels())
        registers, spills = resources(binary, folder)
        shared = binary.metadata.shared
        line = f"{case.name} {launch.kernel} {dtype}: "
        line += f"{registers} registers, {shared} bytes shared, {spills} spills"
        sys.stdout.write(line + "\n")  # shown by pytest -rP
        assert spills <= allowed(launch, dtype), line
        assert shared <= MOST_SHARED, line
    return {launch.kernel for launch in found}


@pytest.mark.usefixtures("card")
def test_a_stage_of_the_published_models(tmp_path):
    assert check(STAGE, HALF, tmp_path) == kernels().keys()


@pytest.mark.usefixtures("card")
def test_wide_heads_in_fp32(tmp_path):
    """Whose products hold whole rows of the operands in registers: what spills first."""
    assert check(replace(STAGE, name="2d-wide", head_dim=128), FLOAT32, tmp_path) == kernels().keys()


@pytest.mark.long
@pytest.mark.parametrize("dtype", [FLOAT32, HALF, torch.float16], ids=str)
@pytest.mark.parametrize("case", WORKLOADS, ids=lambda case: case.name)
@pytest.mark.usefixtures("card")
def test_every_workload(case, dtype, tmp_path):
    check(case, dtype, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("dtype", [FLOAT32, HALF], ids=str)
def test_an_amd_card(dtype, monkeypatch):
    compile_for("gfx942", monkeypatch)
    for launch in launches(STAGE, dtype):
        assembly = compiled(launch, kernels()).asm["amdgcn"]
        assert re.search(r"\.vgpr_spill_count: *0\b", assembly), launch.kernel


@pytest.mark.parametrize("card", [90], indirect=True, ids=["sm_90"])
@pytest.mark.usefixtures("card")
def test_map_sizes_share_a_kernel():
    """Sizes and strides are arguments: a new map size compiles nothing."""

    def binaries(*sizes):
        found = [launches(BY_NAME["2d-plain"].grown(n, 5), HALF)[0] for n in sizes]
        return {compiled(launch, kernels()).hash for launch in found}

    assert binaries(33, 48, 97) == binaries(33)
