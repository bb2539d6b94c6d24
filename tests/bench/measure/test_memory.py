"""The probe sees what a call holds at once, and formulas agree with it."""

import dataclasses
import subprocess
import sys

import pytest
import torch
from torch import nn

from qna.analysis.footprint import peak_bytes
from qna.bench.measure import memory
from qna.bench.measure.contender import Setting
from qna.mixers import QnA2d, WindowAttention2d
from qna.models._parts.block import MixerBlock
from qna.ops.learned_query import ROW

MIB = 2**20
# what a process's size moves by on its own: page tables, arenas of small blocks, per-core counters
SLACK = 1.0 * MIB
SHAPE, INPUT = (1, 64, 64, 64), 4 * 64**3  # the input stands before the call


@pytest.fixture(scope="module")
def peak_of():
    """Asks one helper process for the peak of a call of `targets`."""
    if sys.platform.startswith("linux"):
        assert memory.cannot_probe() is None
    elif reason := memory.cannot_probe():
        pytest.skip(reason)
    with memory.probe("tests.bench.measure.targets:call") as probe:
        yield lambda what, **question: probe.ask(do="peak", question={"what": what, **question})


def test_a_known_allocation_is_measured_and_freed_blocks_are_not_counted(peak_of):
    for mib in (3, 64):
        # two blocks one after the other, only one at a time
        assert abs(peak_of("allocate", mib=mib) - mib * MIB) < SLACK
    # each question has a process of its own: a large one before leaves no trace
    assert abs(peak_of("allocate", mib=3) - 3 * MIB) < SLACK


def test_a_failing_call_is_an_error_here_and_the_probe_lives_on(peak_of):
    with pytest.raises(RuntimeError, match="ValueError: asked to fail"):
        peak_of("allocate", fail=True)
    assert peak_of("allocate", mib=8) > 7 * MIB


def test_where_memory_ends_the_measured_process_goes_first_and_the_probe_lives_on(peak_of):
    with pytest.raises(RuntimeError, match="was killed, probably for want of memory"):
        peak_of("end")
    assert peak_of("allocate", mib=8) > 7 * MIB


def test_the_copy_s_memory_is_one_map_and_unfolding_grows_with_the_window(peak_of):
    def peak(name, window):
        setting = dataclasses.asdict(Setting(batch=1, height=64, width=64, dim=32, window=window, heads=4))
        return peak_of("peer", kind="op", name=name, setting=setting, threads=1, mode="forward")

    one_map = 64 * 64 * 32 * 4
    assert abs(peak("copy", 3) - one_map) < SLACK
    assert peak("sasa-unfold", 7) > 49 * one_map > 2 * peak("sasa-unfold", 3)


@pytest.mark.parametrize("kind", ["linear", "window attention", "block"])
def test_formulas_of_peak_bytes_agree_with_what_is_measured(peak_of, kind):
    if kind == "linear":
        layer: nn.Module = nn.Linear(64, 512)
        found = peak_of("linear", positions=4096, features=[64, 512])
    else:
        layer = WindowAttention2d(64, num_heads=2, window_size=8)
        layer = MixerBlock(64, layer, out_dim=64) if kind == "block" else layer
        found = peak_of("module", kind=kind)
    expected = peak_bytes(layer, SHAPE) - INPUT
    assert abs(found - expected) < 0.1 * expected + SLACK


def test_qna_holds_its_formula_at_least_and_nothing_that_grows_with_the_window(peak_of):
    expected = peak_bytes(QnA2d(64, num_heads=8, kernel_size=3), SHAPE) - INPUT
    assert expected == 4 * 64 * 64 * (64 + 16 + 64)
    three, nine = (peak_of("module", kind="qna", window=k) for k in (3, 9))
    assert three > expected - SLACK
    if any(b.name == "cpu" and not b.missing() for b in ROW.backends):  # the formula is that of fused kernels
        assert three < 1.1 * expected + SLACK
    assert abs(nine - three) < 0.1 * three + SLACK


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_allocator_s_peak_on_a_gpu():
    assert memory.peak_on_gpu(lambda: torch.ones(2**20, device="cuda")) == 4 * MIB


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the allocator of Linux's C library")
def test_a_process_that_is_timed_keeps_what_it_frees():
    text = """
import resource, torch
from qna._core.allocator import keep_freed_blocks
keep_freed_blocks()
for _ in range(20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    run = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    # a block that goes back to the system costs its pages again; the first ones settle where it lies
    assert max(int(faults) for faults in run.stdout.split()[10:]) < 2**24 * 4 // 4096 / 8
