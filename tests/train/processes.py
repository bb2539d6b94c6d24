"""Real processes of `qna train` on real images, one or two, that can be made to fail at exact places."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

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
import qna.train.checkpoint, qna.train.learner, qna.train.loop
from qna.cli import main

place, number = sys.argv[1], int(sys.argv[2])
rank = os.environ.get("ONLY_RANK", os.environ.get("RANK"))
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

if rank != os.environ.get("RANK"):
    pass
elif place == "update":
    qna.train.loop.Training._update = at(qna.train.loop.Training._update, kill)
elif place == "write":
    os.fsync = at(os.fsync, kill)
elif place == "replace":
    os.replace = at(os.replace, kill)
elif place == "disk":
    qna.train.learner.save_checkpoint = at(qna.train.learner.save_checkpoint, fill_disk)
sys.exit(main(sys.argv[3:]))
"""


def rigged(place, number, *arguments):
    command = [sys.executable, "-c", RIG, place, str(number), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def log(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("seconds", None)
    return lines


def torchrun(*arguments, **environment):
    """Run in two processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*launcher, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
