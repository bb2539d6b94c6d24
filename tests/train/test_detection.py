"""Detection as a task of the loop: it learns, goes on bit for bit, and refuses what it cannot use."""

import dataclasses
import json
import sys

import pytest
import torch

from qna._core.errors import InvalidInput, MissingExtra

try:
    import qna.models.detectors  # noqa: F401
except MissingExtra as missing:
    pytest.skip(str(missing), allow_module_level=True)

from qna.cli import main
from qna.data.scenes import SceneOptions, write_scenes
from qna.data.scenes.drawn import draw_sources
from qna.eval import judge_boxes
from qna.train import Observer, TrainConfig, fit, resume
from qna.train.checkpoint import load_tensors
from qna.train.config import (
    AugmentOptions,
    DetectionOptions,
    ImageOptions,
    NetworkOptions,
    OptimOptions,
    RunOptions,
)
from qna.train.reload_detector import load_detector
from tests.train.processes import RIG, log, torchrun

COMMON = (
    *("d_model=16", "num_queries=5", "decoder_layers=2"),
    *("encoder_attention_heads=2", "decoder_attention_heads=2", "encoder_ffn_dim=32", "decoder_ffn_dim=32"),
)
KWARGS = {
    "detr": (*COMMON, "encoder_layers=1"),
    "rt-detr": (*COMMON, "encoder_hidden_dim=16", "num_denoising=4"),
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Twelve scenes to train on and five to judge, of drawn shapes."""
    root = tmp_path_factory.mktemp("scenes")
    stamps, photos = draw_sources(root / "sources", each=2)
    write_scenes(
        root / "data", SceneOptions(images=12, held_out=5, size=32, objects=2, stamps=stamps, photos=photos)
    )
    return root / "data"


@pytest.fixture(params=KWARGS)
def config(request, scenes, tmp_path):
    """Six updates in two epochs; all that is random takes part."""
    return TrainConfig(
        images=ImageOptions(data=str(scenes), image_size=32),
        network=NetworkOptions(model="qna_vit_nano_16", model_kwargs=("dim=16",), drop_path=0.1),
        augment=AugmentOptions(crop=(0.5, 1.0), flip=True, color=0.2),
        detection=DetectionOptions(detector=request.param, detector_kwargs=KWARGS[request.param]),
        optim=OptimOptions(epochs=2, batch_size=4, lr=0.05, warmup_epochs=1, ema=0.9, clip=1.0),
        run=RunOptions(task="detection", out=tmp_path / "run", device="cpu", save_every=1),
    )


class Crash(Observer):
    def update(self, step, epoch, loss):
        if step == 4:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_run_goes_on_bit_for_bit_and_its_weights_come_back(config):
    whole = fit(config)
    assert whole.metrics["held_out"] == 5
    assert 0 <= whole.metrics["map"] <= whole.metrics["map_50"] <= 1
    assert set(whole.metrics["map_of_class"]) == {"cross", "diamond", "square", "triangle"}
    with pytest.raises(KeyboardInterrupt):
        fit(config, Crash())
    again = resume(whole.folder.with_name("run-2"))
    assert log(again.folder) == log(whole.folder)
    for name in ("model.safetensors", "checkpoint.safetensors"):
        a, b = load_tensors(again.folder / name)[0], load_tensors(whole.folder / name)[0]
        assert all(torch.equal(a[key], b[key]) for key in a)
    finder = load_detector(str(whole.folder))
    assert finder.classes == whole.data.classes
    scores, skipped = judge_boxes(finder, whole.data, batch_size=config.optim.batch_size)
    assert dataclasses.replace(scores, loss=whole.scores.loss) == whole.scores
    assert scores.loss is None
    assert not skipped


def one(scenes, tmp_path, **detection):
    return TrainConfig(
        images=ImageOptions(data=str(scenes), image_size=32),
        network=NetworkOptions(model="qna_vit_nano_16", model_kwargs=("dim=16",)),
        detection=DetectionOptions(**{"detector_kwargs": KWARGS["detr"], **detection}),
        optim=OptimOptions(epochs=1, batch_size=4),
        run=RunOptions(task="detection", out=tmp_path / "run", device="cpu"),
    )


@pytest.mark.slow
def test_weights_of_other_classes_start_a_run_but_for_the_classifier(scenes, tmp_path, changed):
    config = one(scenes, tmp_path)
    first = fit(config)
    fewer = tmp_path / "fewer"
    for part in ("train", "val"):
        (fewer / part).mkdir(parents=True)
        (fewer / part / "images").symlink_to(scenes / part / "images")
        told = json.loads((scenes / part / "annotations.json").read_text())
        told["annotations"] = [a for a in told["annotations"] if a["category_id"] < 3]
        told["categories"] = told["categories"][:2]
        (fewer / part / "annotations.json").write_text(json.dumps(told))
    again = fit(changed(config, data=str(fewer), weights=first.folder / "model.safetensors", lr=0.0))
    a, b = first.network.state_dict(), again.network.state_dict()
    differ = {name for name in a if a[name].shape != b[name].shape or not torch.equal(a[name], b[name])}
    assert differ == {"model.class_labels_classifier.weight", "model.class_labels_classifier.bias"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"detector": "dter"}, "unknown detector 'dter'; did you mean 'detr'"),
        (
            {"detector_kwargs": ("d_modle=8",)},
            "argument of detr 'd_modle'; did you mean 'd_model'",
        ),
        (
            {"detector": "rt-detr", "image_size": 36},
            "squares of a multiple of 8 pixels .*, got image_size=36; try 32",
        ),
        (
            {"detector": "rt-detr", "detector_kwargs": ("num_queries=400",)},
            "takes its 400 queries from the positions of its maps, which are 336 at image_size=32",
        ),
        ({"rotate": 5.0}, "task detection makes no use of rotate=5.0: leave it at 0.0"),
        ({"data": "digits"}, "annotations in COCO's format, and 'digits' is no folder"),
        ({"model_kwargs": ("num_classes=3",)}, "model_kwargs cannot set num_classes"),
    ],
)
def test_what_cannot_be_trained_is_said_before_anything_is_written(scenes, tmp_path, changed, options, said):
    with pytest.raises(InvalidInput, match=said):
        fit(changed(one(scenes, tmp_path), **options))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("package", ["torchmetrics.detection", "pycocotools.mask"])
def test_what_is_missing_to_judge_is_said_before_an_epoch(package, scenes, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    told = rf"mean average precision needs the package '{package.split('.')[0]}': pip install 'qna\[dense\]'"
    with pytest.raises(MissingExtra, match=told):
        fit(one(scenes, tmp_path))
    assert not (tmp_path / "run").exists()


def test_options_of_detection_are_refused_elsewhere(config):
    elsewhere = dataclasses.replace(config, run=dataclasses.replace(config.run, task="classification"))
    with pytest.raises(InvalidInput, match=r"task classification makes no use of detector"):
        fit(elsewhere)


def words(scenes, *more):
    """A run of the command: 3 updates in each of 2 epochs of one process, 1 in each of two processes."""
    kwargs = KWARGS["rt-detr"]
    return [
        *("train", "--task", "detection", "--data", scenes, "--image-size", "32", "--detector", "rt-detr"),
        *("--detector-kwargs", *kwargs, "--model", "qna_vit_nano_16", "--model-kwargs", "dim=16"),
        *("--epochs", "2", "--batch-size", "4", "--precision", "fp32", "--ema", "0.9", "--workers", "0"),
        *("--device", "cpu", "--threads", "1", *more),
    ]


def test_the_command_draws_boxes_in_its_report(scenes, tmp_path, capsys):
    assert main([*map(str, words(scenes, "--out", tmp_path / "run", "--epochs", "1"))]) == 0
    told = capsys.readouterr().out
    assert "mAP 0." in told
    page = (tmp_path / "run" / "report.md").read_text()
    assert page.startswith("# qna_vit_nano_16 on")
    assert "mean average precision 0." in page.splitlines()[0]
    for line in (
        "| held out, at IoU 0.5 | 0.",
        "| held out, by class | cross 0.",
        "![boxes](boxes.png)",
        "Dashed boxes are there",
    ):
        assert line in page
    for name in ("boxes.png", "learning_curve.png"):
        assert (tmp_path / "run" / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.long
def test_two_processes_judge_each_image_once_and_go_on_bit_for_bit(scenes, tmp_path):
    whole, folder, rig = tmp_path / "whole", tmp_path / "run", tmp_path / "rig.py"
    rig.write_text(RIG)
    options = words(scenes, "--save-every", "1", "--batch-size", "2", "--epochs", "3")
    run = torchrun("-m", "qna", *options, "--out", whole)
    assert run.returncode == 0, run.stderr
    # an odd number of images: one process has a batch more to judge
    assert json.loads((whole / "metrics.json").read_text())["held_out"] == 5
    run = torchrun(rig, "update", "5", *options, "--out", folder)
    assert run.returncode != 0
    run = torchrun("-m", "qna", "train", "--resume", folder)
    assert run.returncode == 0, run.stderr
    assert log(folder) == log(whole)
    a, b = (load_tensors(run / "model.safetensors")[0] for run in (folder, whole))
    assert all(torch.equal(a[key], b[key]) for key in a)
