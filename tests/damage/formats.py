"""Every file that the package reads: how a whole one is made, what reads it, and how it is damaged.

Not here: what lies in the package itself (tuned tiles), and what its own processes tell each other.
"""

import dataclasses
import io
import json
import os
import shutil
import sys
import tarfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_saver import save

from qna._core.errors import InvalidInput
from qna.bench.measure import rows
from qna.bench.publish.pictures import pictures
from qna.cli.predict import _places
from qna.cli.share import _read_metrics
from qna.data import DATA, DataSpec
from qna.data.images.archive import load_tar
from qna.data.images.cifar10 import _from_pngs
from qna.data.images.fashion_mnist import read_idx
from qna.eval import find_images, predict
from qna.labs.results import metrics_of, read_figures
from qna.labs.running import run_lab
from qna.models import create
from qna.models.flax_file import flatten, read_flax, write_flax
from qna.models.shared_folder import read_config
from qna.models.sharing import save_pretrained
from qna.train import TrainConfig, resume
from qna.train.checkpoint import SHARDED_CHECKPOINT, Progress, Saved, load_checkpoint
from qna.train.config import OptimOptions
from qna.train.folder import cut_log
from qna.train.optimizer import build_optimizer
from qna.train.reload import load_classifier
from qna.train.sharded_checkpoint import FOLDERS, _digest
from qna.train.weights import read_weights
from tests.damage.mutations import (
    bytes_changed,
    cells_changed,
    header_changed,
    json_changed,
    lines_changed,
)
from tests.labs.toy import TOY
from tests.train.conftest import few

FEW = {"few": DataSpec("two classes of light", few)}
LAB = dataclasses.replace(TOY, picture=None)


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes:
        file: in the folder that `make_whole` fills.
        read: what users do with it; raises InvalidInput where it cannot be used.
        changes: ways to damage it.
        refused: the least part of damaged files that cannot be right.
        count: damaged files in the fast tier, fewer where one takes long.
    """

    file: str
    read: Callable[[Path], object]
    changes: tuple[Callable, ...] = (bytes_changed,)
    refused: float = 0.3
    count: int = 120


def make_whole(folder: Path, run: Path) -> None:
    """Fill `folder` with a whole file of every format; `run` is the folder of a complete training run."""
    shutil.copytree(run, folder / "run")
    classifier = load_classifier(str(run))
    state = classifier.network.state_dict()
    save_pretrained(classifier.network, folder / "share", class_names=classifier.classes)
    torch.save(state, folder / "w.pth")
    torch.save({"model": state}, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    write_flax(
        folder / "w.msgpack", {"params": {"a": {"kernel": torch.ones(2, 3)}, "b": {"bias": torch.ones(4)}}}
    )
    run_lab(LAB, LAB.tiny, folder / "lab")
    shutil.copy(folder / "lab" / "rows.csv", folder / "rows.csv")
    (folder / "sharded").mkdir()
    _make_shards(folder / "sharded", state)
    (folder / "tars").mkdir()
    for part in ("train", "val"):
        with tarfile.open(folder / "tars" / f"{part}.tar", "w") as tar:
            for name in ("a", "b"):
                _add(tar, f"{name}/0.png", picture())
                _add(tar, f"{name}/1.cls", b"0")
    (folder / "0.png").write_bytes(picture())
    (folder / "names").write_text("0.png\n./0.png\n")
    (folder / "images-idx3").write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4]) + bytes(24))
    (folder / "cifar").mkdir()
    Image.fromarray(np.zeros((4, 1024, 3), np.uint8)).save(folder / "cifar" / "a.png")
    (folder / "cifar" / "labels.json").write_text("[0, 1, 2, 9]")


def _make_shards(folder, state):
    """A sharded checkpoint as a run of one process would leave it."""
    parts = folder / FOLDERS[0]
    tensors = {f"network/{name}": tensor for name, tensor in state.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # says that this is one process
        save(
            tensors, storage_writer=HuggingFaceStorageWriter(str(parts), save_distributed=True), no_dist=True
        )
    files = {part.name: part.stat().st_size for part in parts.iterdir()}
    digests = {part.name: _digest(part) for part in parts.iterdir()}
    about = dataclasses.asdict(Saved(Progress()))
    del about["scaler"]
    told = {"folder": parts.name, "files": files, "sha256": digests, **about}
    (folder / SHARDED_CHECKPOINT).write_text(json.dumps(told))


def picture():
    """A PNG of 8 x 6 pixels."""
    out = io.BytesIO()
    Image.new("L", (8, 6), 90).save(out, "PNG")
    return out.getvalue()


def _add(tar, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _use(source):
    """Bring a network back and let it answer."""
    classifier = load_classifier(source)
    view = classifier.view
    logits = classifier.network(torch.zeros(1, view.channels, view.size, view.size))
    assert logits.shape == (1, len(classifier.classes))


def _go_on(path):
    """Load a checkpoint and make an update."""
    network = create("test_vit", num_classes=2, in_chans=1, img_size=32)
    optimizer = build_optimizer(network, OptimOptions())
    load_checkpoint(path, network=network, average=None, optimizer=optimizer)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()


def _of_shards(path):
    read_weights(path.parents[1] / SHARDED_CHECKPOINT)


def _resume(path):
    with patch.dict(DATA, FEW):
        resume(path.parent)


def _events(path):
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    for event in cut_log(copy, 10, 10):
        assert isinstance(event["event"], str)
    copy.unlink()


def _figures(path):
    LAB.verdict(metrics_of(read_figures(path)))
    pictures(rows.read(path))


def _named(path):
    os.chdir(path.parent)
    classifier = _loaded(path.parent / "run")
    with (
        path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file,
        patch.object(sys, "stdin", file),
    ):
        entries = list(islice(predict(classifier, find_images(_places(["-"]))), 100))
    _refuse_errors(entries)


def _answered(path):
    classifier = _loaded(path.parent / "run")
    _refuse_errors(predict(classifier, find_images([str(path)])))


@cache
def _loaded(run):
    return load_classifier(str(run))


def _refuse_errors(entries):
    for entry in entries:
        if entry.error is not None:
            raise InvalidInput(entry.error)


WEIGHTS = (bytes_changed, header_changed)
JSON = (bytes_changed, json_changed)
FORMATS = {
    "configuration of a run": Format("run/config.json", TrainConfig.from_file, JSON),
    "configuration of a run that goes on": Format("run/config.json", _resume, (json_changed,), count=16),
    "metrics": Format("run/metrics.json", lambda p: _read_metrics(p.parent, p.name), JSON),
    "log": Format("run/log.jsonl", _events, (bytes_changed, lines_changed), refused=0),
    "weights of a run": Format("run/model.safetensors", lambda p: _use(str(p)), WEIGHTS, count=60),
    "checkpoint": Format("run/checkpoint.safetensors", _go_on, WEIGHTS, count=60),
    "sharded checkpoint": Format(f"sharded/{SHARDED_CHECKPOINT}", read_weights, JSON),
    "shard": Format(
        f"sharded/{FOLDERS[0]}/shard-00001-model-00001-of-00001.safetensors", _of_shards, count=60
    ),
    "configuration of a shared model": Format(
        "share/config.json", lambda p: read_config(p.parent), JSON, 0.1
    ),
    "shared model": Format(
        "share/config.json", lambda p: _use(f"local-dir:{p.parent}"), (json_changed,), refused=0.1, count=16
    ),
    "weights of a shared model": Format(
        "share/model.safetensors", lambda p: _use(f"local-dir:{p.parent}"), WEIGHTS, count=40
    ),
    "torch file": Format("w.pth", read_weights, refused=0.1),
    "legacy torch file": Format("legacy.pth", read_weights, refused=0.1),
    "flax": Format("w.msgpack", lambda p: [a.tensor(n) for n, a in flatten(read_flax(p))]),
    "rows": Format("rows.csv", _figures, (bytes_changed, cells_changed), refused=0.1),
    "configuration of a laboratory": Format(
        "lab/config.json", lambda p: run_lab(LAB, LAB.tiny, p.parent), JSON, count=60
    ),
    "rows of a laboratory": Format(
        "lab/rows.csv",
        lambda p: run_lab(LAB, LAB.tiny, p.parent),
        (bytes_changed, cells_changed),
        refused=0.1,
    ),
    "tar": Format("tars/train.tar", lambda p: load_tar(p.parent), refused=0),
    "picture": Format("0.png", _answered, count=40),
    "list of names": Format("names", _named, refused=0.1, count=20),
    "idx": Format("images-idx3", lambda p: read_idx(p, 3)),
    "labels": Format("cifar/labels.json", lambda p: _from_pngs(p.parent, ("a.png",), p.name), JSON),
}
