"""The CUDA kernels compile by NVRTC for all kinds of cards, on none: registers, shared memory, spills."""

import sys

import pytest
import torch

from qna.ops._shared.cuda import nvrtc
from qna.ops._shared.cuda.driver import Limits
from qna.ops._shared.cuda.program import Program
from qna.ops._shared.window import Window
from qna.ops.learned_query.cases import Case
from qna.ops.learned_query.cuda import arguments, plan
from qna.ops.learned_query.cuda.plan import Geometry
from tests.ops.learned_query.triton.interpreter import heads_fastest
from tests.ops.machine_code import busiest_loop, resources

pytestmark = [
    pytest.mark.skipif(bool(nvrtc.missing()), reason="; ".join(nvrtc.missing()) or "there"),
    pytest.mark.skipif(sys.platform != "linux", reason="triton, whose tools read machine code, is for Linux"),
]

FLOAT32, BFLOAT16, FLOAT16 = torch.float32, torch.bfloat16, torch.float16
# by generation: bytes of shared memory for a block and of a multiprocessor
CARDS = {
    "sm_80": Limits(163 * 1024, 164 * 1024),
    "sm_90": Limits(227 * 1024, 228 * 1024),
    "sm_100": Limits(227 * 1024, 228 * 1024),
}
REGISTERS = 65536  # of a multiprocessor
# registers of a thread at most: a multiprocessor holds three blocks of 128 threads, four, and two
MOST = {"attend": 168, "sum_inside": 128, "gather": 255, "add_up": 40}


def stage(kernel, heads=8, head_dim=8, queries=2, size=56):
    return Case(
        f"k{kernel}-L{queries}-{heads}x{head_dim}",
        (size, size),
        (kernel, kernel),
        1,
        queries,
        heads,
        head_dim,
    )


PAPER = [stage(kernel) for kernel in (3, 5, 7)]
# stages of the published models, what has many queries or much per head, and heads that do not come out even
WORKLOADS = [
    *(stage(kernel, 64, size=7) for kernel in (3, 7)),
    *(stage(kernel, 6, 16) for kernel in (3, 7)),
    *(stage(kernel, 2, 32) for kernel in (5, 7)),
    *(stage(kernel, 4, 16, 4) for kernel in (3, 7)),
    stage(7, 1, 64, 1, size=14),
    stage(5, 3, 5, 1, size=14),
]


def geometry_of(case, dtype, card, monkeypatch):
    """Of maps as the layers make them, as a card would get it."""
    monkeypatch.setattr(plan, "limits", lambda device: CARDS[card])
    made = heads_fastest(case.make(dtype))
    window = Window.over(case.space, case.kernel, stride=1, padding="same", dilation=1)
    return Geometry(made["value"], made["bias"], window, (made["scores"], made["value"])), made, window


def check(case, dtype, card, kernels, *, folder, monkeypatch):
    geometry, made, window = geometry_of(case, dtype, card, monkeypatch)
    call = arguments.call(window, made["scores"])
    call.programs = geometry.programs()
    for kernel in kernels:
        launch = geometry.launch(kernel, call)
        registers, spills = resources(nvrtc.compiled(launch.program, card), folder)
        resident = min(
            REGISTERS // (-(-registers // 8) * 8 * launch.threads),
            CARDS[card].multiprocessor // (launch.shared + 1024),
        )
        line = f"{card} {case.name} {dtype} {kernel}: {registers} registers, {spills} spills, "
        line += (
            f"{launch.threads} threads, {launch.shared} bytes shared, {resident} blocks on a multiprocessor"
        )
        sys.stdout.write(line + "\n")  # shown by pytest -rP
        assert spills == 0, line
        assert registers <= MOST[kernel], line
        assert launch.shared <= CARDS[card].block, line
        assert resident >= 2, line


@pytest.mark.parametrize("kernel", ["attend", "gather"])
def test_the_model_stage_of_the_paper(kernel, tmp_path, monkeypatch):
    check(PAPER[0], BFLOAT16, "sm_90", [kernel], folder=tmp_path, monkeypatch=monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16, FLOAT16], ids=str)
@pytest.mark.parametrize("case", PAPER, ids=lambda c: c.name)
@pytest.mark.parametrize("card", CARDS)
def test_every_card(card, case, dtype, tmp_path, monkeypatch):
    check(case, dtype, card, MOST, folder=tmp_path, monkeypatch=monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16], ids=str)
@pytest.mark.parametrize("case", WORKLOADS, ids=lambda c: c.name)
def test_every_workload(case, dtype, tmp_path, monkeypatch):
    check(case, dtype, "sm_90", MOST, folder=tmp_path, monkeypatch=monkeypatch)


# instructions of the loop over the taps' lines for each number of the output, at most
@pytest.mark.parametrize(
    ("case", "most"),
    [
        (PAPER[0], 19),
        pytest.param(PAPER[1], 48, marks=pytest.mark.long),
        pytest.param(PAPER[2], 90, marks=pytest.mark.long),
    ],
    ids=lambda x: getattr(x, "name", ""),
)
def test_windows_of_a_run_share_their_instructions(case, most, tmp_path, monkeypatch):
    """Beside 1.375 multiplications for each tap: the value's, and three of two queries for 8 channels."""
    program = geometry_of(case, BFLOAT16, "sm_90", monkeypatch)[0].program("attend")
    kernel, run = case.kernel[0], dict(program.macros)["QNA_RUN"]
    issued, multiplied = busiest_loop(nvrtc.compiled(program, "sm_90"), tmp_path)
    numbers = run * case.head_dim
    assert multiplied >= 1.375 * kernel * numbers
    line = f"{case.name}: {issued * kernel / numbers:.1f} instructions per number of the output, "
    line += f"{multiplied * kernel / numbers:.1f} of them multiply"
    sys.stdout.write(line + "\n")
    assert issued * kernel / numbers <= most, line


def test_map_sizes_share_a_kernel(monkeypatch):
    """Sizes and strides are arguments: a new map size compiles nothing."""
    programs = {
        geometry_of(stage(5, size=size), BFLOAT16, "sm_90", monkeypatch)[0].program("attend")
        for size in (9, 33, 48, 97)
    }
    assert len(programs) == 1


def test_a_source_that_does_not_compile_is_told_once_with_the_log(tmp_path):
    (tmp_path / "wrong.cu").write_text('extern "C" __global__ void wrong() { nowhere(); }\n')
    program = Program(tmp_path, "wrong", ())
    with pytest.raises(nvrtc.CompileFailed, match=r"(?s)^wrong for sm_90: .*\"nowhere\" is undefined"):
        nvrtc.compiled(program, "sm_90")
    text = nvrtc.failure(program, "sm_90")
    (tmp_path / "wrong.cu").unlink()
    assert nvrtc.failure(program, "sm_90") == text
