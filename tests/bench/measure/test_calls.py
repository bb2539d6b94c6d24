"""Plain callables: turns, medians, and memory in forks of a process that has already worked."""

import os
import sys

import pytest
import torch

from qna._core.allocator import keep_freed_blocks
from qna._core.errors import InvalidInput
from qna.bench.measure import memory
from qna.bench.measure.calls import peaks_of_calls, time_calls
from qna.bench.measure.harness import Plan

PLAN = Plan(seconds=0.001, turns=3, least=6)
MIB = 2**20

on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="CPU memory is told by Linux")


def test_calls_take_turns_and_the_process_has_its_cores_and_threads_back():
    log, cores = [], os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    inside, threads = set(), torch.get_num_threads()

    def call(name):
        def run():
            log.append(name)
            inside.add(len(os.sched_getaffinity(0)) if cores else 1)
            sum(range(100_000))  # some milliseconds: the plan's least number of calls

        return run

    times = time_calls({name: call(name) for name in "ab"}, plan=PLAN)
    assert inside == {1}
    assert (os.sched_getaffinity(0) if cores else set()) == cores
    assert torch.get_num_threads() == threads
    # one that is first, then two of each turn behind one that fills the caches
    assert "".join(log) == "ab" + "aaabbb" * 3
    assert [len(times.seconds[name]) for name in "ab"] == [6, 6]
    median, low, high = times.spread("a")
    assert 0 < low <= median <= high
    assert times.medians == {"a": median, "b": times.spread("b")[0]}
    assert (times.threads, times.stamp.torch) == (1, torch.__version__)


def test_what_raises_is_named():
    def fails():
        raise ValueError("no such map")

    with pytest.raises(InvalidInput, match="b cannot be timed: ValueError: no such map"):
        time_calls({"a": lambda: None, "b": fails}, plan=PLAN)
    with pytest.raises(InvalidInput, match="one call at least"):
        time_calls({})
    if memory.cannot_probe() is None:
        with pytest.raises(InvalidInput, match="memory of b cannot be told: ValueError: no such map"):
            peaks_of_calls({"a": lambda: None, "b": fails})


def hold(*mib):
    """Hold blocks one after the other, give all but the last back, and return that."""

    def run():
        for size in mib[:-1]:
            torch.ones(int(size * 2**18))
        return torch.ones(int(mib[-1] * 2**18))

    return run


@on_linux
def test_memory_is_told_in_a_fork_of_a_process_that_keeps_what_it_freed():
    keep_freed_blocks()
    blocks = [torch.ones(2**14 * n) for n in range(1, 200)]
    del blocks[::2]  # what is free now is of many sizes, between blocks in use
    calls = {"small": hold(3), "twice": hold(40, 40), "falling": hold(20, 10)}
    found = peaks_of_calls(calls)
    for name, mib in (("small", 3), ("twice", 40), ("falling", 20)):
        assert abs(found[name] - mib * MIB) < MIB, (name, found[name] / MIB)
    assert len(blocks) == 99


@on_linux
def test_a_fork_computes_gradients_after_its_parent_did_and_changes_nothing_here():
    weight = torch.randn(512, 512, requires_grad=True)
    seen = []

    def step():
        seen.append(None)
        weight.grad = None
        (weight @ weight).sum().backward()

    step()
    gradient = weight.grad
    found = peaks_of_calls({"step": step})
    assert len(seen) == 1
    assert weight.grad is gradient
    # the product, its expanded gradient and two products of that at most, one result at least
    assert MIB / 2 < found["step"] < 6 * MIB
