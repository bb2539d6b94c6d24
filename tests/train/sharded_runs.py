"""Started by torchrun with a folder: short runs in two processes with and without shards, and what they gave.

All of them share the start of the two processes, which takes longer than the runs.
"""

import atexit
import dataclasses
import json
import os
import resource
import sys
from pathlib import Path

import accelerate
import torch

from qna._core.errors import InvalidInput
from qna.data import DATA, DataSpec
from qna.train import Observer, RunStopped, fit, recipe, resume
from qna.train import sharded_checkpoint as checkpoints
from qna.train.loop import Training
from qna.train.sharding import blocks, shard
from tests.train.conftest import few

# 4 updates of 4 images in each of 2 epochs
BASE = {
    "data": "few",
    "model": "test_vit",
    "model_kwargs": ("depth=2",),
    "image_size": 32,
    "epochs": 2,
    "batch_size": 2,
    "warmup_epochs": 0,
    "lr": 1e-3,
    "ema": 0.0,
    "device": "cpu",
}
# name -> (options without shards, options with them)
PAIRS = {
    "everything random": (
        {"ema": 0.9, "mixup": 0.8, "cutmix": 1.0, "erase": 0.5, "drop_path": 0.3, "policy": "rand-m5-n1"},
        {},
    ),
    "frozen parts": ({"freeze": ("patch_embed", "blocks.0", "blocks.1.norm1")}, {}),
    "bf16": ({"precision": "bf16"}, {}),
    "qna": ({"model": "qna_vit_nano_16", "model_kwargs": (), "image_size": 16}, {}),
    "gradient checkpointing": ({}, {"grad_checkpointing": True}),
    "accumulation": ({"batch_size": 1, "accumulate": 2}, {}),
    # AdamW hardly sees the scale of a gradient unless its elements are near its eps, 1e-8
    "clipping": ({"clip": 1e-6}, {}),
}


def configure(**options):
    config, options = recipe("digits"), {**BASE, **options}
    for part in dataclasses.fields(config):
        group = getattr(config, part.name)
        mine = {f.name: options.pop(f.name) for f in dataclasses.fields(group) if f.name in options}
        config = dataclasses.replace(config, **{part.name: dataclasses.replace(group, **mine)})
    assert not options
    return config


class Killed(BaseException):
    pass


class Watcher(Observer):
    """Keeps the losses, and what part of the parameters and of the optimizer's state is in this process.

    Args:
        dies: the update after which the run breaks off, as if the process were gone.
    """

    def __init__(self, dies=None):
        self.losses, self.run, self.dies = [], None, dies

    def begin(self, run):
        self.run = run

    def update(self, step, epoch, loss):
        self.losses.append(loss)
        if step == self.dies:
            raise Killed

    def parts(self):
        network, state = self.run.learner.network, self.run.learner.optimizer.state.values()
        local = [getattr(t, "to_local", lambda t=t: t)() for t in network.parameters()]
        moments = [getattr(s["exp_avg"], "to_local", lambda s=s: s["exp_avg"])() for s in state]
        total = sum(p.numel() for p in network.parameters())
        return [sum(t.numel() for t in tensors) / total for tensors in (local, moments)]


def outcome_of(config):
    """Losses, scores and more of a run, and its weights."""
    norms, original = [], accelerate.Accelerator.clip_grad_norm_

    def noted(self, *args, **kwargs):
        norm = original(self, *args, **kwargs)
        norms.append(float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm))
        return norm

    accelerate.Accelerator.clip_grad_norm_ = noted
    try:
        outcome = fit(config, watcher := Watcher())
    finally:
        accelerate.Accelerator.clip_grad_norm_ = original
    found = {
        "losses": watcher.losses,
        "norms": norms,
        "parts": watcher.parts(),
        "blocks": sum(type(b).__name__.startswith("FSDP") for b in blocks(watcher.run.learner.network)),
        "loss": outcome.scores.loss,
        "confusion": outcome.scores.confusion,
    }
    return found, outcome.network.state_dict()


def pairs(folder):
    found = {}
    for name, (options, only_sharded) in PAIRS.items():
        out = folder / name
        one, one_weights = outcome_of(configure(out=out / "ddp", **options))
        two, two_weights = outcome_of(configure(out=out / "fsdp", sharding="fsdp", **options, **only_sharded))
        # keys of a whole network: nothing of the shards is left in it
        assert one_weights.keys() == two_weights.keys()
        equal = all(torch.equal(one_weights[k], two_weights[k]) for k in one_weights)
        found[name] = {"ddp": one, "fsdp": two, "equal_weights": equal}
    return found


def broken_off(folder):
    """Both processes break off in the middle of the second epoch; then the run goes on."""
    options, found = PAIRS["everything random"][0], {}
    for sharding in ("none", "fsdp"):
        out, rest = folder / f"broken-{sharding}", Watcher()
        try:
            fit(configure(out=out, sharding=sharding, save_every=3, **options), Watcher(dies=7))
        except Killed:
            resume(out, rest)
        found[sharding] = rest.losses
    return found


def photos(folder):
    """Evaluation on images that do not deal out evenly, some of them unreadable."""
    for sharding in ("none", "fsdp"):
        options = {"data": str(folder / "photos"), "batch_size": 4, "precision": "fp32"}
        fit(configure(out=folder / f"photos-{sharding}", sharding=sharding, **options))


def full_disk(folder):
    """A disk that is full for one process ends the run in both; then it goes on.

    Once a shard of the second process finds no room, once the small file of the first.
    """
    found = {}
    limits, save, write_text = (
        resource.getrlimit(resource.RLIMIT_FSIZE),
        checkpoints.save,
        checkpoints.write_text,
    )
    rank, calls = torch.distributed.get_rank(), []

    def full(original, at, size):
        def write(*args, **kwargs):
            calls.append(1)
            if len(calls) == 3 and rank == at:
                # no file may grow beyond this: the kernel refuses the write, as on a full disk
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
            return original(*args, **kwargs)

        return write

    for place in ("shard", "pointer"):
        calls.clear()
        if place == "shard":
            checkpoints.save = full(save, 1, 200_000)
        else:
            checkpoints.write_text = full(write_text, 0, 100)
        first, rest, said = Watcher(), Watcher(), None
        try:
            fit(configure(out=folder / place, sharding="fsdp", save_every=3), first)
        except RunStopped as stop:
            said = str(stop)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        checkpoints.save, checkpoints.write_text = save, write_text
        outcome = resume(folder / place, rest)
        left = sorted(path.name for path in outcome.folder.iterdir())
        found[place] = {"said": said, "first": first.losses, "rest": rest.losses, "left": left}
    return found


def not_finite(folder):
    """A weight in the second process's shard becomes NaN after six updates."""
    original, rank = Training._update, torch.distributed.get_rank()

    def poisoned(self, group, stop):
        asked = original(self, group, stop)
        if self.progress.step == 6 and rank == 1:
            self.learner.network.head.bias.to_local().data[0] = float("nan")
        return asked

    Training._update = poisoned
    try:
        fit(configure(out=folder / "nan", sharding="fsdp", save_every=2))
    except RunStopped as stop:
        return str(stop)
    finally:
        Training._update = original


class Scalar(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(1.0))


def refused():
    said = {}
    networks = {"batch norm": torch.nn.Sequential(torch.nn.BatchNorm2d(3)), "scalar": Scalar()}
    for name, network in networks.items():
        try:
            shard(network, torch.device("cpu"))
        except InvalidInput as error:
            said[name] = str(error)
    return said


def tell_what_is_left(path):
    """Write whether there is a process group, when all handlers that a run has registered are through."""
    left = torch.distributed.is_initialized()
    path.write_text(f"group: {left}")
    if left:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    to = Path(sys.argv[1])
    atexit.register(tell_what_is_left, to / f"left-{os.environ['RANK']}")
    DATA["few"] = DataSpec("two classes of light", few)
    photos(to)
    # the caller may keep the group that the first run has made
    kept = torch.distributed.group.WORLD
    results = {
        "pairs": pairs(to),
        "broken off": broken_off(to),
        "full disk": full_disk(to),
        "not finite": not_finite(to),
        "refused": refused(),
    }
    everyone = accelerate.utils.gather_object([results])
    if torch.distributed.get_rank() == 0:
        (to / "results.json").write_text(json.dumps(everyone))
