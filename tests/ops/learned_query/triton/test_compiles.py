"""The Triton kernels compile for every generation of cards, on none: registers, shared memory, spills."""

import math
import re
import sys

import pytest
import torch

from qna.ops._shared.triton import runtime
from qna.ops._shared.window import Window
from qna.ops.learned_query.cases import CASES, Case
from qna.ops.learned_query.layout import empty_like, groups, subpixels
from qna.ops.learned_query.triton import products_plan, windows_plan
from qna.ops.learned_query.triton.launch import kernels
from qna.ops.learned_query.triton.tiles import PRODUCTS
from tests.ops import no_card
from tests.ops.machine_code import issued, resources
from tests.ops.no_card import ARCHITECTURES, MOST_SHARED, compile_for

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or runtime.INTERPRETED,
    reason="needs triton's compiler: Linux, without TRITON_INTERPRET",
)

compiler = pytest.mark.skipif(
    not runtime.INSTALLED or runtime.compiler() < products_plan.COMPILER,
    reason="the kernels by matrix products are for triton 3.7 on",
)

FLOAT32, HALF = torch.float32, torch.bfloat16


def model_stage(size, heads, kernel, head_dim=8, **window):
    name = f"{heads}x{head_dim}-k{kernel}" + "-strided" * bool(window)
    return Case(name, (size, size), (kernel, kernel), 2, 2, heads, head_dim, window)


UPSAMPLED = Case("upsampled", (28, 28), (3, 3), 2, 4, 8, 8, {"factor": (2, 2)})
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
    UPSAMPLED,
)
# what the kernels by matrix products take of them: windows 3 to 13, all head sizes, one to four queries
BY_PRODUCTS = (
    *(model_stage(56, 8, kernel) for kernel in (3, 5, 7, 13)),
    model_stage(28, 16, 5),
    model_stage(56, 6, 3, head_dim=16),
    model_stage(56, 2, 7, head_dim=32),
    model_stage(14, 16, 5, head_dim=4),
    Case("1d-four-queries", (512,), (9,), 2, 4, 4, 16),
    Case("one-query", (28, 28), (5, 5), 2, 1, 8, 8),
    UPSAMPLED,
)


def pretend(architecture, name, monkeypatch):
    """Plan and compile for a card as if it were there."""
    for plan in (windows_plan, products_plan):
        monkeypatch.setattr(plan, "architecture", lambda device: name)
    monkeypatch.setattr(products_plan, "processors", lambda device: 132)
    compile_for(architecture, monkeypatch)


@pytest.fixture
def amd_card(monkeypatch):
    pretend("gfx942", "gfx942", monkeypatch)


@pytest.fixture(params=ARCHITECTURES, ids="sm_{}".format)
def card(request, monkeypatch):
    pretend(request.param, f"sm_{request.param}", monkeypatch)
    return request.param


def arguments(case, dtype, heads_fastest, weighted=True):
    """The tensors of a round of launches, laid out as the layers make them, and its window.

    With a factor a round is for one output of each window: here the last.
    """
    window = {"stride": 1, "padding": "same", "dilation": 1, **case.window}
    factor = window.pop("factor", (1,))
    pairs, channels = case.queries * case.heads, case.heads * case.head_dim
    row = torch.empty(case.batch, *case.space, channels + pairs, dtype=dtype)
    value, scores = row.split([channels, pairs], -1)
    scores = scores.unflatten(-1, (case.queries, case.heads))
    if heads_fastest:
        value = value.unflatten(-1, (case.head_dim, case.heads)).transpose(-1, -2)
    else:
        value = value.unflatten(-1, (case.heads, case.head_dim))
    bias = torch.empty(*case.kernel, case.queries, case.heads)
    scores, bias = (groups(t, factor)[-1] for t in (scores, bias))
    return (scores, value, bias, bias if weighted else None), Window.over(case.space, case.kernel, **window)


def launches(case, dtype, heads_fastest, weighted=True, plan=windows_plan):
    """Every launch of a forward and a backward of a plan."""
    inputs, window = arguments(case, dtype, heads_fastest, weighted)
    scores, value, bias, weight = inputs
    factor = case.window.get("factor", (1,) * len(case.space))
    space = [n * f for n, f in zip(window.out, factor, strict=True)]
    *_, out = subpixels(empty_like(value, space), factor)
    lse = torch.empty(case.batch, *window.out, *scores.shape[-2:])
    # what several rounds add to is in fp32
    of_value = empty_like(value, case.space, FLOAT32 if math.prod(factor) > 1 else None)
    grads = (torch.empty_like(scores), of_value)
    tables = tuple(None if t is None else torch.empty_like(t) for t in (bias, weight))
    forward = plan.forward(*inputs, out, lse, window)
    if plan is products_plan and not plan.fits_forward(scores, value, window):
        forward = []  # goes to the other plan
    return [*forward, *plan.backward(out, *inputs, lse, (*grads, *tables), window)]


def compiled(launch):
    return no_card.compiled(launch, kernels())


def check(case, dtype, heads_fastest, folder, *, weighted=True, plan=windows_plan):
    for launch in launches(case, dtype, heads_fastest, weighted, plan):
        binary = compiled(launch)
        registers, spills = resources(binary, folder)
        shared = binary.metadata.shared
        line = f"{case.name} {launch.kernel} {dtype} heads_fastest={heads_fastest}: "
        line += f"{registers} registers, {shared} bytes shared, {spills} spills"
        sys.stdout.write(line + "\n")  # shown by pytest -rP
        assert spills == 0, line
        assert shared <= (MOST_SHARED if launch.kernel in PRODUCTS else 48 * 1024), line
        if case in WORKLOADS and case.head_dim <= 16 and heads_fastest and launch.kernel == "attend":
            # a thread holds all channels of its heads: nothing is exchanged but one number per warp, which
            # tells if any window of the program needs its own maximum
            warps = launch.options["num_warps"]
            assert shared == (4 * warps if warps > 1 else 0), line


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("dtype", [HALF, pytest.param(torch.float16, marks=pytest.mark.long)], ids=str)
@pytest.mark.parametrize("case", [WORKLOADS[0], UPSAMPLED], ids=lambda c: c.name)
def test_the_model_stage_of_the_paper_and_an_up_sampling(case, dtype, tmp_path):
    check(case, dtype, True, tmp_path)


# instructions for each number of the output, at most
@pytest.mark.parametrize(
    ("kernel", "most"),
    [(3, 55), pytest.param(5, 115, marks=pytest.mark.long), pytest.param(7, 200, marks=pytest.mark.long)],
)
@pytest.mark.parametrize("card", [90], indirect=True, ids=["sm_90"])
@pytest.mark.usefixtures("card")
def test_windows_of_a_thread_share_their_instructions(kernel, most, tmp_path):
    launch = launches(model_stage(56, 8, kernel), HALF, True)[1]
    rows, columns, _, groups, heads, head_dim, windows, _ = launch.constants["BLOCK"]
    numbers = math.prod((rows, columns, groups, heads, head_dim, windows)) / (
        32 * launch.options["num_warps"]
    )
    count = issued(compiled(launch), tmp_path, kernel, "exact.py") / numbers
    sys.stdout.write(f"{kernel}x{kernel} attend: {count:.1f} instructions per number of the output\n")
    assert count <= most


@pytest.mark.long
@pytest.mark.parametrize("dtype", [FLOAT32, HALF], ids=str)
@pytest.mark.parametrize("heads_fastest", [True, False], ids=["heads-fastest", "contiguous"])
@pytest.mark.parametrize("case", WORKLOADS, ids=lambda c: c.name)
@pytest.mark.usefixtures("card")
def test_every_workload(case, heads_fastest, dtype, tmp_path):
    check(case, dtype, heads_fastest, tmp_path)


def check_products(case, heads_fastest, folder):
    inputs, window = arguments(case, HALF, heads_fastest)
    assert products_plan.fits(*inputs[:2], window)
    check(case, HALF, heads_fastest, folder, plan=products_plan)


@compiler
@pytest.mark.usefixtures("card")
def test_the_model_stage_of_the_paper_by_products(tmp_path):
    check_products(BY_PRODUCTS[0], True, tmp_path)


@compiler
@pytest.mark.long
@pytest.mark.parametrize("heads_fastest", [True, False], ids=["heads-fastest", "contiguous"])
@pytest.mark.parametrize("case", BY_PRODUCTS, ids=lambda c: c.name)
@pytest.mark.usefixtures("card")
def test_every_workload_by_products(case, heads_fastest, tmp_path):
    check_products(case, heads_fastest, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
@pytest.mark.usefixtures("card")
def test_every_shared_case(case, tmp_path):
    check(case, FLOAT32, True, tmp_path, weighted=False)


@pytest.mark.long
@pytest.mark.usefixtures("amd_card")
@pytest.mark.parametrize("dtype", [FLOAT32, HALF], ids=str)
@pytest.mark.parametrize("case", WORKLOADS, ids=lambda c: c.name)
def test_every_workload_compiles_for_an_amd_card(case, dtype):
    for launch in launches(case, dtype, True):
        assembly = compiled(launch).asm["amdgcn"]
        assert re.search(r"\.vgpr_spill_count: *0\b", assembly), launch.kernel


@pytest.mark.usefixtures("amd_card")
def test_an_amd_card_takes_no_products():
    inputs, window = arguments(BY_PRODUCTS[1], HALF, True)
    assert not products_plan.fits(*inputs[:2], window)


def kernels_for(plan, *sizes):
    """What maps of these sizes need compiled."""
    stages = [model_stage(size, 8, 5) for size in sizes]
    return {compiled(launch).hash for stage in stages for launch in launches(stage, HALF, True, plan=plan)}


@pytest.mark.usefixtures("card")
def test_map_sizes_share_a_kernel():
    """Sizes and strides are arguments: a new map size compiles nothing."""
    assert kernels_for(windows_plan, 33, 48, 64, 97) == kernels_for(windows_plan, 33)


@compiler
@pytest.mark.long
@pytest.mark.usefixtures("card")
def test_map_sizes_share_a_kernel_by_products():
    assert kernels_for(products_plan, 33, 48, 64, 97) == kernels_for(products_plan, 33)
