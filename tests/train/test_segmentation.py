"""Segmentation as a task: what it learns, that it goes on bit for bit, and what it refuses."""

import dataclasses
import json
import shlex

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from qna._core.errors import InvalidInput, UnknownName
from qna.data.masks import MaskBatch, save_mask
from qna.eval import RegionTally, judge_regions, segment
from qna.train import RunStopped, TrainConfig, fit, resume
from qna.train.config import (
    AugmentOptions,
    ImageOptions,
    NetworkOptions,
    OptimOptions,
    RunOptions,
    SegmentationOptions,
)
from qna.train.recipes import recipe_for
from qna.train.reload import load_classifier, task_of
from qna.train.reload_segmenter import load_segmenter
from qna.train.tasks.segmentation import Segmentation
from tests.train.processes import torchrun
from tests.train.stopping import Stop, assert_same_end

pytest.importorskip("segmentation_models_pytorch")


def draw(root, sizes):
    """Dark ground with a light box of class 1; the frame of the box counts nowhere."""
    g = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 5)):
        for kind in ("images", "masks"):
            (root / part / kind).mkdir(parents=True)
        for number in range(count):
            height, width = sizes[number % len(sizes)]
            image = g.integers(0, 80, (height, width, 3), dtype=np.uint8)
            mask = np.zeros((height, width), dtype=np.uint8)
            top, left = g.integers(0, height // 2), g.integers(0, width // 2)
            mask[top : top + height // 2, left : left + width // 2] = 255
            inside = slice(top + 1, top + height // 2 - 1), slice(left + 1, left + width // 2 - 1)
            mask[inside] = 1
            image[mask > 0] += 150
            Image.fromarray(image).save(root / part / "images" / f"{number}.png")
            save_mask(root / part / "masks" / f"{number}.png", mask, ((0, 0, 0), (250, 0, 0)))
    (root / "classes.txt").write_text("ground\nbox\n")
    return root


@pytest.fixture(scope="session")
def boxes(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("boxes"), [(24, 32), (32, 24), (20, 20)])


@pytest.fixture
def config(boxes, tmp_path):
    """Four updates in two epochs, in which all that is random takes part."""
    return TrainConfig(
        images=ImageOptions(data=str(boxes), image_size=16),
        network=NetworkOptions(
            model="qna_unet_nano",
            model_kwargs=("dim=8", "encoder_blocks=1,1", "decoder_blocks=1,"),
            drop_path=0.2,
        ),
        augment=AugmentOptions(crop=(0.5, 1.0), rotate=10, shift=0.1, zoom=0.1, flip=True, color=0.2),
        optim=OptimOptions(epochs=2, batch_size=4, lr=0.2, warmup_epochs=0.5, ema=0.5),
        run=RunOptions(task="segmentation", out=tmp_path / "run", device="cpu", tensorboard=False),
    )


def test_it_learns_what_is_there_to_see(config, changed):
    outcome = fit(changed(config, epochs=20, drop_path=0.0, ema=0.0, lr=0.3, rotate=0, shift=0, zoom=0))
    # all ground would be a mean of about 0.4
    assert outcome.metrics["miou"] > 0.8
    assert outcome.metrics["iou"][1] > 0.7
    assert outcome.metrics["classes"] == ("ground", "box")
    assert outcome.history[-1]["loss"] < outcome.history[0]["loss"] / 2
    # and the network that is brought back from the folder gets the same scores
    segmenter = load_segmenter(str(outcome.folder))
    scores, skipped = judge_regions(segmenter, outcome.data)
    assert scores == outcome.scores
    assert not skipped
    for index in range(5):
        image, mask = outcome.data.held_out.open(index)
        found = segment(segmenter, image)
        assert found.shape == mask.shape
        assert ((found == mask) | (mask == 255)).mean() > 0.8


@pytest.mark.parametrize("model", ["qna_unet_nano", "test_resnet"])
@pytest.mark.parametrize("at", [1, 2])
def test_a_run_that_was_stopped_ends_bit_for_bit_as_one_that_was_not(config, changed, model, at):
    if model != "qna_unet_nano":  # a decoder with batch norm, whose statistics must go on too
        config = changed(config, model=model, model_kwargs=(), drop_path=None, grad_checkpointing=False)
    whole = fit(config)
    with pytest.raises(RunStopped, match=rf"up to update {at} of 4"):
        fit(config, Stop(at))
    outcome = resume(whole.folder.with_name("run-2"))
    assert outcome.scores == whole.scores
    assert_same_end(outcome.folder, whole.folder)


def test_workers_change_nothing(config, changed):
    assert_same_end(fit(config).folder, fit(changed(config, workers=1)).folder)


def test_masks_that_changed_are_told(config, boxes, tmp_path, changed):
    import shutil

    own = shutil.copytree(boxes, tmp_path / "own")
    folder = fit(changed(config, data=str(own))).folder
    save_mask(own / "train" / "masks" / "2.png", np.ones((20, 20), dtype=np.uint8), ((0, 0, 0), (9, 9, 9)))
    with pytest.raises(InvalidInput, match="order or contents of the training masks changed"):
        resume(folder)


def task_for(config):
    task = Segmentation()
    task.load(config)
    return task


def test_the_loss_is_cross_entropy_and_dice(config, changed):
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 2, 6, 7, generator=g)
    masks = torch.randint(0, 2, (3, 6, 7), generator=g)
    masks[torch.rand(masks.shape, generator=g) < 0.2] = 255
    batch = MaskBatch(torch.empty(3), masks, torch.arange(3), [])
    plain = changed(config, smoothing=0.0, dice=0.0)
    entropy = task_for(plain).loss(logits, batch, 0)
    torch.testing.assert_close(entropy, F.cross_entropy(logits, masks, ignore_index=255))
    both = task_for(changed(plain, dice=0.5)).loss(logits, batch, 0)
    counts = (masks != 255).float()
    p = logits.softmax(1) * counts[:, None]
    t = F.one_hot(masks.masked_fill(masks == 255, 0), 2).movedim(-1, 1) * counts[:, None]
    overlap = 2 * (p * t).sum((0, 2, 3)) / (p.sum((0, 2, 3)) + t.sum((0, 2, 3)))
    torch.testing.assert_close(both, entropy + 0.5 * (1 - overlap).mean())


def test_a_batch_in_which_nothing_counts_has_no_loss(config):
    logits = torch.randn(2, 2, 4, 4, requires_grad=True)
    batch = MaskBatch(torch.empty(2), torch.full((2, 4, 4), 255), torch.arange(2), [])
    loss = task_for(config).loss(logits, batch, 0)
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


def test_scores_are_counted_at_the_size_of_the_masks(config):
    task = task_for(config)
    (batch, *_) = task.held_out_batches(task.data, 0, 1)
    assert batch.images.shape == (1, 3, 16, 21)
    assert batch.masks.shape == (1, 24, 32)
    output = torch.randn(1, 2, 16, 21, generator=torch.Generator().manual_seed(0))
    tally, own = task.tally("cpu"), RegionTally(2, 255)
    tally.add(output, batch)
    own.add(F.interpolate(output, (24, 32), mode="bilinear"), batch.masks)
    assert tally.scores() == own.scores()
    assert tally.scores().pixels == int((batch.masks != 255).sum())


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"mixup": 0.8}, InvalidInput, "task segmentation makes no use of mixup=0.8: leave it at 0.0"),
        ({"policy": "rand-m9"}, InvalidInput, "task segmentation makes no use of policy=rand-m9"),
        ({"crop_pct": 0.5}, InvalidInput, "makes no use of crop_pct=0.5: leave it at 0.875"),
        ({"data": "nowhere"}, InvalidInput, "'nowhere' was not found"),
        ({"decoder": "fpn"}, InvalidInput, "qna_unet_nano segments by itself and takes no decoder"),
        (
            {"model": "resnet18", "model_kwargs": (), "decoder": "fpm"},
            UnknownName,
            "unknown decoder 'fpm'; did you mean 'fpn'",
        ),
        ({"model": "test_vit", "model_kwargs": ()}, InvalidInput, "a decoder needs maps of a backbone that"),
        ({"model_kwargs": ("dim=12",)}, InvalidInput, "head_dim must divide dim=12"),
        ({"model_kwargs": ("num_classes=3",)}, InvalidInput, "model_kwargs cannot set num_classes"),
        (
            {"task": "classification", "dice": 0.3},
            InvalidInput,
            "no use of dice=0.3: it belongs to segmentation",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(config, changed, options, error, says):
    with pytest.raises(error, match=says):
        fit(changed(config, **options))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ignore": 256}, "ignore must be at most 255, got 256"),
        ({"dice": -1.0}, "dice must be at least 0, got -1.0"),
        ({"decoder_kwargs": ("x",)}, "decoder_kwargs must be NAME=VALUE"),
    ],
)
def test_options_are_checked_where_they_are_given(options, says):
    with pytest.raises(InvalidInput, match=says):
        TrainConfig(segmentation=SegmentationOptions(**options))


def test_the_task_brings_its_recipe():
    assert recipe_for("anywhere", "segmentation").run.task == "segmentation"
    assert recipe_for(None).run.task == "classification"
    assert TrainConfig.from_json(recipe_for(None, "segmentation").to_json()) == recipe_for(
        None, "segmentation"
    )
    with pytest.raises(UnknownName, match="unknown task 'segmentatoin'"):
        recipe_for(None, "segmentatoin")


def test_runs_say_what_they_are(config):
    folder = fit(dataclasses.replace(config, optim=dataclasses.replace(config.optim, epochs=1))).folder
    assert task_of(str(folder)) == "segmentation"
    assert task_of("resnet18") == "classification"
    with pytest.raises(InvalidInput):
        load_classifier(str(folder))
    whole = load_segmenter(str(folder / "model.safetensors"), image_size=24)
    assert (whole.size, whole.classes, whole.palette[1]) == (24, ("ground", "box"), (250, 0, 0))


@pytest.mark.slow
def test_two_processes_score_every_image_once(boxes, tmp_path):
    """Five held-out images, three and two: whole numbers equal those of one process with the same weights."""
    options = shlex.split(
        "train --task segmentation --model qna_unet_nano --model-kwargs dim=8 --image-size 16 --epochs 2 "
        "--batch-size 2 --ema 0.5 --save-every 1 --device cpu --threads 1"
    )
    out = tmp_path / "two"
    run = torchrun("-m", "qna", *options, "--data", boxes, "--out", out)
    assert run.returncode == 0, run.stderr
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["held_out"] == 5
    segmenter = load_segmenter(str(out))
    task = Segmentation()
    data = task.load(TrainConfig.from_file(out / "config.json"))
    scores, _ = judge_regions(segmenter, data)
    assert [list(row) for row in scores.confusion] == metrics["confusion"]
    assert list(scores.boundary_iou) == metrics["boundary_iou"]
    assert metrics["loss"] == pytest.approx(scores.loss, rel=1e-12)
