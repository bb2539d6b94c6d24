"""Every file that the package reads: how a whole one is made, what reads it, and how it is damaged.

Not here: what lies in the package itself (tuned tiles), and what its own processes tell each other.
"""

import dataclasses
import gzip
import io
import json
import os
import shutil
import sys
import tarfile
import tempfile
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
from qna.cli._answers import Counted, places
from qna.cli.predict import _write_json
from qna.cli.share import _read_metrics
from qna.data import DATA, DataSpec, UnreadableImage
from qna.data.boxes import load_coco
from qna.data.images.archive import load_tar
from qna.data.images.cifar10 import _from_pngs
from qna.data.images.fashion_mnist import read_idx
from qna.data.masks import load_masked_folder, save_mask
from qna.data.scenes import SceneOptions, compose, find_photographs, find_stamps, write_scenes
from qna.eval import Guess, Prediction, Shares, UnusableAnswers, find_images, predict, segment
from qna.labs.results import metrics_of, read_figures
from qna.labs.running import run_lab
from qna.models import create
from qna.models.flax_file import flatten, read_flax, write_flax
from qna.models.shared_folder import read_config
from qna.models.sharing import save_pretrained
from qna.train import TrainConfig, resume
from qna.train.checkpoint import SHARDED_CHECKPOINT, Progress, Saved, load_checkpoint, save_weights
from qna.train.config import ImageOptions, NetworkOptions, OptimOptions, RunOptions
from qna.train.folder import cut_log
from qna.train.optimizer import build_optimizer
from qna.train.reload import load_classifier
from qna.train.reload_segmenter import load_segmenter
from qna.train.sharded_checkpoint import FOLDERS, _digest
from qna.train.tasks.segmentation import build_segmenter
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
    zipped = gzip.compress((folder / "images-idx3").read_bytes())
    (folder / "images-idx3.gz").write_bytes(zipped)
    _make_scenes(folder)
    _make_segmenter(folder / "masks.safetensors")
    list(_shares(folder / "shares", _certain).all([Prediction("a"), Prediction("b")]))
    (only,) = (folder / "shares").iterdir()
    shutil.copy(only, folder / "share.json")
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


def _make_scenes(folder):
    """Stamps and photographs, and what is composed of them: images, masks, classes.txt, annotations.json."""
    for name in ("a", "b"):
        (folder / "stamps" / name).mkdir(parents=True)
        for number in range(2):
            stamp = Image.new("RGBA", (9, 9))
            stamp.paste((90, 200, 40, 255), (2, 1, 8, 6))
            stamp.save(folder / "stamps" / name / f"{number}.png")
    (folder / "photos").mkdir()
    for number in range(2):
        (folder / "photos" / f"{number}.png").write_bytes(picture())
    options = SceneOptions(
        images=2, held_out=1, size=40, stamps=folder / "stamps", photos=folder / "photos", seed=1
    )
    write_scenes(folder / "scenes", options)


def _make_segmenter(path):
    """The weights of a run that segments."""
    config = TrainConfig(
        images=ImageOptions(data="scenes", image_size=16),
        network=NetworkOptions(
            model="qna_unet_nano", model_kwargs=("dim=8", "encoder_blocks=1,1", "decoder_blocks=1,")
        ),
        run=RunOptions(task="segmentation"),
    )
    network = build_segmenter(config.network, config.segmentation, classes=3, channels=3)
    palette = ((0, 0, 0), (200, 0, 0), (0, 200, 0))
    about = {"classes": ("ground", "a", "b"), "palette": palette, "mean": (0.5,) * 3, "std": (0.2,) * 3}
    save_weights(path, network, {"config": json.loads(config.to_json()), **about})


def _shares(folder, answer):
    return Shares(folder, 4, "key", answer, Prediction)


def _certain(entries):
    for entry in entries:
        yield dataclasses.replace(entry, guesses=(Guess(1, "b", 0.75), Guess(0, "a", 0.25)))


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


def _segmented(path):
    """Make a mask with a run's weights and write it."""
    segmenter = load_segmenter(str(path))
    try:
        classes = segment(segmenter, Image.new("RGB", (20, 12), (90, 90, 90)))
    except UnusableAnswers as error:
        raise InvalidInput(str(error)) from None
    save_mask(path.with_suffix(".png"), classes, segmenter.palette)
    path.with_suffix(".png").unlink()


def _composed(path):
    """Compose a scene with a stamp or on a photograph."""
    root = path.parents[1] if path.parent.name == "photos" else path.parents[2]
    _, stamps = find_stamps(root / "stamps")
    try:
        for seed in range(4):
            compose(find_photographs(root / "photos"), stamps, 16, 2, seed)
    except UnreadableImage as error:
        raise InvalidInput(str(error)) from None


def _kept(path):
    """Take what is kept of a share, which is made again where it cannot be."""

    def refuse(entries):
        raise InvalidInput("what was kept cannot be used")

    with tempfile.TemporaryDirectory() as folder:
        (kept,) = (path.parent / "shares").iterdir()
        shutil.copy(path, Path(folder) / kept.name)
        found = _shares(Path(folder), refuse).all([Prediction("a"), Prediction("b")])
        _write_json(io.StringIO(), Counted(found, None))


def _named(path):
    os.chdir(path.parent)
    classifier = _loaded(path.parent / "run")
    with (
        path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file,
        patch.object(sys, "stdin", file),
    ):
        entries = list(islice(predict(classifier, find_images(places(["-"]))), 100))
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
    "zipped idx": Format("images-idx3.gz", lambda p: read_idx(p, 3)),
    "annotations": Format("scenes/train/annotations.json", lambda p: load_coco(p.parents[1]), JSON),
    "mask": Format("scenes/train/masks/000000.png", lambda p: load_masked_folder(p.parents[2])),
    "names of classes": Format("scenes/classes.txt", lambda p: load_masked_folder(p.parent), refused=0.1),
    "weights of a run that segments": Format("masks.safetensors", _segmented, WEIGHTS, count=60),
    "stamp": Format("stamps/a/0.png", _composed, count=40),
    "photograph": Format("photos/0.png", _composed, count=40),
    "kept predictions": Format("share.json", _kept, JSON),
    "labels": Format("cifar/labels.json", lambda p: _from_pngs(p.parent, ("a.png",), p.name), JSON),
}
