"""Real processes of `qna train` on real images, killed at bad moments; each goes on bit for bit.

The undisturbed run and what goes on run in the process of the tests: a start costs more than the updates.
"""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from qna.cli import main
from qna.train.checkpoint import load_tensors
from tests.train.processes import OPTIONS, log, rigged

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert main([*OPTIONS, "--out", str(folder)]) == 0
    assert len([line for line in log(folder) if line["event"] == "update"]) == 22
    return folder


def assert_goes_on_to_the_same_end(folder, whole, *, after):
    tensors, about = load_tensors(folder / "checkpoint.safetensors")
    assert about["progress"]["step"] in after
    assert all(t.isfinite().all() for t in tensors.values())
    assert main(["train", "--resume", str(folder)]) == 0
    assert log(folder) == log(whole)
    for name in ("model.safetensors", "checkpoint.safetensors"):
        ours, theirs = load_tensors(folder / name)[0], load_tensors(whole / name)[0]
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert not list(folder.glob(".*"))
    assert (folder / "report.md").exists()


@pytest.mark.parametrize(
    ("place", "number", "after"),
    [
        pytest.param("update", 14, {12}, marks=pytest.mark.long),
        # a file and its folder are synced one after the other: the configuration, then the checkpoints after
        # 0, 3, 6 and 9 updates; the last of them is complete but still has its temporary name
        ("write", 9, {6}),
        pytest.param("replace", 6, {9}, marks=pytest.mark.long),
    ],
)
def test_kill_9(tmp_path, whole, place, number, after):
    folder = tmp_path / "run"
    run = rigged(place, number, *OPTIONS, "--out", folder)
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert_goes_on_to_the_same_end(folder, whole, after=after)


@pytest.mark.long
def test_interrupted_from_the_keyboard(tmp_path, whole):
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "qna", *OPTIONS, "--out", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until = time.monotonic() + 120
    while not (folder / "log.jsonl").exists() or len((folder / "log.jsonl").read_text().splitlines()) < 5:
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    # like a terminal: the worker that prepares the images gets it too
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "stopped by SIGINT" in error
    assert f"go on with `qna train --resume {folder}`" in error
    done = load_tensors(folder / "checkpoint.safetensors")[1]["progress"]["step"]
    # nothing that was done is lost
    assert done == max(line["step"] for line in log(folder))
    assert_goes_on_to_the_same_end(folder, whole, after={done})


@pytest.mark.long
def test_a_full_disk(tmp_path, whole):
    folder = tmp_path / "run"
    run = rigged("disk", 3, *OPTIONS, "--out", folder)
    assert run.returncode == 1, run.stderr
    assert run.stderr.startswith("qna: cannot write to")
    assert "holds the run up to update 3 of 22" in run.stderr
    assert run.stderr.count("\n") == 1
    assert_goes_on_to_the_same_end(folder, whole, after={3})
