"""Real processes of `qna train` on real images, killed at bad moments; each goes on bit for bit."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image

from qna.train.checkpoint import load_tensors

pytestmark = pytest.mark.slow

# 11 updates in each of 2 epochs, checkpoints after every third; all that is random takes part
OPTIONS = shlex.split(
    "train --data digits --model test_vit --image-size 32 --batch-size 128 --epochs 2 --save-every 3 "
    "--drop-path 0.2 --mixup 0.8 --cutmix 1.0 --erase 0.3 --policy rand-m5-n1 --ema 0.9 --device cpu "
    "--threads 1 --workers 1"
)

# runs `qna` after a change that makes it fail at an exact place
RIG = """
import os, resource, signal, sys
from pathlib import Path
import qna.train.checkpoint, qna.train.loop
from qna.cli import main

place, number = sys.argv[1], int(sys.argv[2])
calls = 0

def at(original, act):
    def rigged(*args, **kwargs):
        global calls
        calls += 1
        if calls == number:
            act()
        return original(*args, **kwargs)
    return rigged

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def fill_disk():
    # no file may grow beyond this: the kernel refuses the write, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))

if place == "update":
    qna.train.loop.Training._update = at(qna.train.loop.Training._update, kill)
elif place == "write":
    os.fsync = at(os.fsync, kill)
elif place == "replace":
    os.replace = at(os.replace, kill)
elif place == "disk":
    qna.train.loop.save_checkpoint = at(qna.train.loop.save_checkpoint, fill_disk)
sys.exit(main(sys.argv[3:]))
"""


def qna(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "qna", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def rigged(place, number, *arguments):
    command = [sys.executable, "-c", RIG, place, str(number), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def log(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("seconds", None)
    return lines


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run = qna(*OPTIONS, "--out", folder)
    assert run.returncode == 0, run.stderr
    assert len([line for line in log(folder) if line["event"] == "update"]) == 22
    return folder


def assert_goes_on_to_the_same_end(folder, whole, *, after):
    tensors, about = load_tensors(folder / "checkpoint.safetensors")
    assert about["progress"]["step"] in after
    assert all(t.isfinite().all() for t in tensors.values())
    run = qna("train", "--resume", folder)
    assert run.returncode == 0, run.stderr
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
        ("update", 14, {12}),
        # a file and its folder are synced one after the other: the configuration, then the checkpoints after
        # 0, 3, 6 and 9 updates; the last of them is complete but still has its temporary name
        ("write", 9, {6}),
        ("replace", 6, {9}),
    ],
)
def test_kill_9(tmp_path, whole, place, number, after):
    folder = tmp_path / "run"
    run = rigged(place, number, *OPTIONS, "--out", folder)
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert_goes_on_to_the_same_end(folder, whole, after=after)


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


def test_a_full_disk(tmp_path, whole):
    folder = tmp_path / "run"
    run = rigged("disk", 3, *OPTIONS, "--out", folder)
    assert run.returncode == 1, run.stderr
    assert run.stderr.startswith("qna: cannot write to")
    assert "holds the run up to update 3 of 22" in run.stderr
    assert run.stderr.count("\n") == 1
    assert_goes_on_to_the_same_end(folder, whole, after={3})


def torchrun(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_two_processes(tmp_path):
    options = [*OPTIONS, "--batch-size", "32", "--accumulate", "2"]
    whole, folder = tmp_path / "whole", tmp_path / "run"
    run = torchrun("-m", "qna", *options, "--out", str(whole))
    assert run.returncode == 0, run.stderr
    assert json.loads((whole / "metrics.json").read_text())["held_out"] == 360
    assert not (tmp_path / "whole-2").exists()
    # both processes die in the middle of the second epoch
    (tmp_path / "rig.py").write_text(RIG)
    run = torchrun(str(tmp_path / "rig.py"), "update", "14", *options, "--out", str(folder))
    assert run.returncode != 0
    run = torchrun("-m", "qna", "train", "--resume", str(folder))
    assert run.returncode == 0, run.stderr
    assert log(folder) == log(whole)
    ours, theirs = (load_tensors(f / "model.safetensors")[0] for f in (folder, whole))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_two_processes_name_what_either_could_not_read(tmp_path):
    for part, count in (("train", 8), ("val", 4)):
        for name, colour in (("dark", 20), ("light", 220)):
            (tmp_path / "photos" / part / name).mkdir(parents=True)
            for i in range(count):
                path = tmp_path / "photos" / part / name / f"{i}.png"
                Image.new("RGB", (40, 32), (colour,) * 3).save(path)
    # evaluation deals images out in turn, so each process has one of these
    bad = [tmp_path / "photos" / "val" / "dark" / name for name in ("0.png", "1.png")]
    for path in bad:
        path.write_bytes(b"")
    options = "train --model test_vit --image-size 32 --batch-size 4 --epochs 1 --device cpu --workers 0"
    photos, out = str(tmp_path / "photos"), tmp_path / "run"
    run = torchrun(
        "-m", "qna", *shlex.split(options), "--precision", "fp32", "--data", photos, "--out", str(out)
    )
    assert run.returncode == 0, run.stderr
    named = [line["image"].partition(": ")[0] for line in log(out) if line["event"] == "unreadable"]
    assert sorted(named) == sorted(map(str, bad))
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["unreadable"], metrics["held_out"]) == (2, 6)
