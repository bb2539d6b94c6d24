"""What becomes of the process group that a run has made."""

import atexit
import os

import pytest
import torch
from torch import distributed

from qna.train.setup import group_ends_at_exit
from tests.train.processes import torchrun

# each process tells what is left when all handlers that a run can have registered are through
SCRIPT = """
import atexit, dataclasses, os, sys
from pathlib import Path
from torch import distributed

def tell():
    left = distributed.is_initialized()
    Path(sys.argv[2], os.environ["RANK"]).write_text(f"group: {left}")
    if left:
        distributed.destroy_process_group()

atexit.register(tell)
from qna.train import recipe
from qna.train.setup import build_accelerator, from_all_processes

if sys.argv[1] == "caller's":
    distributed.init_process_group("gloo")
config = recipe("digits")
build_accelerator(dataclasses.replace(config, run=dataclasses.replace(config.run, device="cpu")))
if sys.argv[1] == "kept":
    kept = distributed.group.WORLD
for _ in range(3):
    from_all_processes([[1.0] * 20_000])
"""


@pytest.mark.long  # that a group ends is seen where runs are, in test_two_processes.py
@pytest.mark.parametrize(("case", "left"), [("ours", False), ("kept", False), ("caller's", True)])
def test_a_process_ends_without_the_group_of_its_runs(tmp_path, case, left):
    (tmp_path / "script.py").write_text(SCRIPT)
    run = torchrun(tmp_path / "script.py", case, tmp_path)
    assert run.returncode == 0, run.stderr
    assert [(tmp_path / rank).read_text() for rank in ("0", "1")] == [f"group: {left}"] * 2


@pytest.fixture
def at_exit(monkeypatch):
    """What is registered for the end of the process."""
    calls = []
    monkeypatch.setattr(atexit, "register", lambda *call: calls.append(call))
    yield calls
    if distributed.is_initialized():
        distributed.destroy_process_group()


def make_group():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)


def test_the_group_ends_with_its_threads(at_exit):
    with group_ends_at_exit():
        make_group()
    ((end, *arguments),) = at_exit
    distributed.all_reduce(torch.ones(3))
    cycle = {}
    cycle.update(itself=cycle, group=distributed.group.WORLD)
    del cycle
    end(*arguments)
    assert not distributed.is_initialized()
    assert arguments[0]() is None  # nothing keeps it: its threads have been joined
    end(*arguments)


def test_only_the_process_that_has_the_threads_ends_them(at_exit, monkeypatch):
    with group_ends_at_exit():
        make_group()
    ((end, *arguments),) = at_exit
    monkeypatch.setattr(os, "getpid", lambda: -1)
    end(*arguments)
    assert distributed.is_initialized()


def test_a_group_of_the_caller_is_left_alone(at_exit):
    make_group()
    with group_ends_at_exit():
        pass
    assert not at_exit
    distributed.destroy_process_group()
    with group_ends_at_exit():
        make_group()
    ((end, *arguments),) = at_exit
    ended = distributed.group.WORLD
    distributed.destroy_process_group()
    make_group()
    end(*arguments)
    assert distributed.is_initialized()
    assert distributed.group.WORLD is not ended


def test_a_group_is_seen_to_when_the_block_fails(at_exit):
    def fail():
        with group_ends_at_exit():
            make_group()
            raise ValueError("what came after")

    with pytest.raises(ValueError, match="what came after"):
        fail()
    assert len(at_exit) == 1


def test_without_a_group_nothing_is_left_to_do(at_exit):
    with group_ends_at_exit():
        pass
    assert not at_exit
