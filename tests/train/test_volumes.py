"""Volumes as a task: what it learns, that it goes on bit for bit, the loss, and what it refuses."""

import json
import shlex
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("monai", reason="qna[volumes] brings it")

from qna._core.errors import InvalidInput, UnknownName
from qna.data.volumes import VolumeBatch
from qna.eval.volumes import find_volumes, judge_volumes, predict_volumes, segment_volume
from qna.train import RunStopped, TrainConfig, fit, resume
from qna.train.config import (
    AugmentOptions,
    ImageOptions,
    NetworkOptions,
    OptimOptions,
    RunOptions,
    VolumeOptions,
)
from qna.train.recipes import recipe_for
from qna.train.reload import load_classifier, task_of
from qna.train.reload_volumes import load_volume_segmenter
from qna.train.tasks.volumes import SegmentedVolumes
from tests.data.volumes.files import picture, write
from tests.train.processes import torchrun
from tests.train.stopping import Stop, assert_same_end


def draw(root, train=4, held_out=3):
    """Noise with a bright box of class 1 somewhere; one volume is a slice, and one has nothing in it."""
    g = np.random.default_rng(0)
    for part, count in (("train", train), ("val", held_out)):
        for number in range(count):
            shape = (1, 14, 13) if number == 2 else (12, 14, 10)
            low = [int(g.integers(0, max(1, n - 5))) for n in shape]
            box = None if (part, number) == ("train", 3) else [(a, a + 5) for a in low]
            voxels, labels = picture(shape, seed=100 * count + number, lesion=box)
            write(root / part / "images" / f"{number}.nii.gz", voxels)
            write(root / part / "labels" / f"{number}.nii.gz", labels)
    (root / "classes.txt").write_text("ground\nbox\n")
    return root


@pytest.fixture(scope="session")
def volumes(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("volumes"))


@pytest.fixture
def config(volumes, tmp_path):
    """Four updates in two epochs, in which all that is random takes part."""
    switches = ("channels=4,8", "gate=concatenated", "dual=True", "deep_supervision=True", "dropout=0.1")
    return TrainConfig(
        images=ImageOptions(data=str(volumes)),
        network=NetworkOptions(model="unet3d_nano", model_kwargs=switches),
        augment=AugmentOptions(flip=True, color=0.2),
        volumes=VolumeOptions(patch=(8, 8, 8), patches=8),
        optim=OptimOptions(epochs=2, batch_size=4, lr=0.2, warmup_epochs=0.5, ema=0.5),
        run=RunOptions(task="volumes", out=tmp_path / "run", device="cpu", threads=1, tensorboard=False),
    )


def test_it_learns_what_is_there_to_see(config, changed):
    plain = {"model_kwargs": ("channels=8,16",), "ema": 0.0, "smoothing": 0.0, "color": 0.0}
    outcome = fit(changed(config, epochs=12, patches=16, lr=0.6, **plain))
    assert outcome.metrics["mean_dice"] > 0.6
    assert outcome.history[-1]["loss"] < outcome.history[0]["loss"]
    assert outcome.metrics["classes"] == ("box",)
    # and the network that is brought back from the folder gets the same scores
    assert task_of(str(outcome.folder)) == "volumes"
    segmenter = load_volume_segmenter(str(outcome.folder))
    told = []
    scores, skipped = judge_volumes(segmenter, outcome.data, told=told.append)
    assert scores == outcome.scores
    assert (list(skipped), told) == ([], [1, 1, 1])
    with pytest.raises(
        InvalidInput, match="is a run of volumes, and only networks that classify can be taken"
    ):
        load_classifier(str(outcome.folder))


@pytest.mark.parametrize("at", [1, 2])
def test_a_run_that_was_stopped_ends_bit_for_bit_as_one_that_was_not(config, at):
    whole = fit(config)
    with pytest.raises(RunStopped, match=rf"up to update {at} of 4"):
        fit(config, Stop(at))
    outcome = resume(whole.folder.with_name("run-2"))
    assert outcome.scores == whole.scores
    assert_same_end(outcome.folder, whole.folder)


def test_labels_that_changed_are_told(config, volumes, tmp_path, changed):
    import shutil

    own = shutil.copytree(volumes, tmp_path / "own")
    folder = fit(changed(config, data=str(own), epochs=1)).folder
    write(own / "train/labels/1.nii.gz", picture((12, 14, 10), lesion=((0, 2), (0, 2), (0, 2)))[1])
    with pytest.raises(InvalidInput, match="order or contents of the volumes to train on changed"):
        resume(folder)


@pytest.mark.slow
def test_two_processes_judge_as_one(volumes, tmp_path, changed, config):
    """Two processes with half a batch each: every volume is judged once, and the run ends."""
    command = shlex.split(
        "train --task volumes --model unet3d_nano --model-kwargs channels=4,8 --patch 8 8 8 --patches 8 "
        "--epochs 1 --device cpu --threads 1 --batch-size 2"
    )
    run = torchrun("-m", "qna", *command, "--data", volumes, "--out", tmp_path / "two")
    assert run.returncode == 0, run.stderr
    metrics = json.loads((tmp_path / "two" / "metrics.json").read_text())
    assert metrics["held_out"] == 3
    segmenter = load_volume_segmenter(str(tmp_path / "two"))
    task = SegmentedVolumes()
    scores, _ = judge_volumes(segmenter, task.load(changed(config, data=str(volumes))))
    assert scores.mean_dice == pytest.approx(metrics["mean_dice"], abs=1e-6)
    assert scores.loss == pytest.approx(metrics["loss"], rel=1e-5)
    assert [s.found for s in scores.sizes] == [s["found"] for s in metrics["sizes"]]


def loss_of(logits, labels, **augment):
    task = SegmentedVolumes()
    task.load(TrainConfig(augment=AugmentOptions(smoothing=0.0, **augment), volumes=LESIONS))
    batch = VolumeBatch(torch.zeros(len(labels), 1), labels, torch.zeros(1), torch.zeros(1))
    return task.loss(logits, batch, 0)


LESIONS = VolumeOptions(voxel=10, volumes_drawn=1, volumes_held_out=1)


@pytest.fixture(autouse=True)
def lesions_without_reading(monkeypatch):
    """The loss asks for data; the smallest that there is."""
    import qna.train.tasks.volumes as task

    real = task.load_volumes
    few = SimpleNamespace(mirrored=False, name="few", classes=("ground", "box"))
    monkeypatch.setattr(task, "load_volumes", lambda c: few if c.volumes is LESIONS else real(c))


def test_the_loss_is_its_formula():
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, 3, generator=g, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 4, 5, 3), generator=g)
    p, t = logits.softmax(1), F.one_hot(labels, 3).movedim(-1, 1).double()
    dice = 0.0
    for k in (1, 2):
        overlap = (p[:, k] * t[:, k]).sum()
        dice += 1 - (2 * overlap + 1) / (p[:, k].square().sum() + t[:, k].sum() + 1)
    expected = F.cross_entropy(logits, labels) + dice / 2
    torch.testing.assert_close(loss_of(logits, labels).double(), expected, rtol=1e-5, atol=1e-6)


def test_limits_of_the_dice_loss():
    """One voxel of 27: right, missed and found for nothing."""
    labels = torch.zeros(1, 3, 3, 3, dtype=torch.int64)
    labels[0, 1, 1, 1] = 1
    sure = 100 * F.one_hot(labels, 2).movedim(-1, 1).float()
    assert loss_of(sure, labels) == pytest.approx(0, abs=1e-6)
    nothing = 100 * F.one_hot(torch.zeros_like(labels), 2).movedim(-1, 1).float()
    dice_alone = loss_of(nothing, labels) - F.cross_entropy(nothing, labels)
    # (0 + 1) / (0 + 1 + 1)
    assert dice_alone == pytest.approx(0.5, abs=1e-5)
    assert loss_of(nothing, torch.zeros_like(labels)) == pytest.approx(0, abs=1e-6)


def test_it_is_not_flat_where_the_published_sum_is():
    """Of two classes with a background that is nearly right."""
    labels = torch.zeros(1, 8, 8, 8, dtype=torch.int64)
    labels[0, 4, 4, 4:6] = 1
    logits = torch.zeros(1, 2, 8, 8, 8)
    logits[:, 0] = 3
    logits.requires_grad_()
    p, t = logits.softmax(1), F.one_hot(labels, 2).movedim(-1, 1).float()
    parts = [
        (2 * (p[:, k] * t[:, k]).sum() + 1) / (p[:, k].square().sum() + t[:, k].sum() + 1) for k in (0, 1)
    ]
    theirs = (1 - sum(parts) / (2 - 1)).clamp(0, 1 - 1e-10)
    (flat,) = torch.autograd.grad(theirs, logits, retain_graph=True)
    assert not flat.any()
    ours = loss_of(logits, labels) - F.cross_entropy(logits, labels)
    (steep,) = torch.autograd.grad(ours, logits)
    assert steep[0, 1, 4, 4, 4] < -1e-4


def test_supervised_logits_are_judged_at_their_size():
    labels = torch.zeros(1, 4, 4, 1, dtype=torch.int64)
    labels[:, 2:] = 1
    small = 50 * F.one_hot(labels[:, ::2, ::2], 2).movedim(-1, 1).float()
    assert loss_of(small, labels) == pytest.approx(0, abs=1e-6)


def test_volumes_of_files(config, changed, tmp_path):
    segmenter = load_volume_segmenter(str(fit(changed(config, epochs=1)).folder))
    folder = tmp_path / "new"
    write(folder / "sub" / "a.nii.gz", picture((12, 14, 10))[0])
    write(folder / "thin.nii", picture((9, 1, 20))[0])
    bad = picture((4, 4, 4))[0]
    bad[0, 0, 0] = np.nan
    write(folder / "nan.nii.gz", bad)
    write(folder / "two_0000.nii", bad)
    write(folder / "two_0001.nii", bad * 0)
    seen, written, told = [], {}, {}

    def begin(name, windows):
        told[name] = [windows, 0]
        return lambda more: told[name].__setitem__(1, told[name][1] + more)

    entries = find_volumes([str(folder), str(folder / "thin.nii"), str(tmp_path / "nowhere.nii")])
    answers = list(
        predict_volumes(segmenter, entries, lambda a, c, g: written.update({a.name: (c, g)}), begin=begin)
    )
    seen = {a.name: a.error for a in answers}
    assert list(seen) == ["nan.nii.gz", "sub/a.nii.gz", "thin.nii.gz", "two.nii.gz", "nowhere.nii.gz"]
    assert "1 of 64 voxels that are NaN" in seen["nan.nii.gz"]
    assert "two_0000.nii holds 1 of 64 voxels that are NaN" in seen["two.nii.gz"]
    assert "there is no file" in seen["nowhere.nii.gz"]
    assert seen["thin.nii.gz"] is seen["sub/a.nii.gz"] is None
    classes, grid = written["sub/a.nii.gz"]
    assert classes.shape == (12, 14, 10)
    ml = next(a.millilitres for a in answers if a.name == "sub/a.nii.gz")
    assert sum(ml) == pytest.approx(1680 * grid.voxel_ml)
    # every window that was told was seen
    assert told
    assert all(windows == count for windows, count in told.values())


def test_channels_must_be_the_networks(config, changed, tmp_path):
    segmenter = load_volume_segmenter(str(fit(changed(config, epochs=1)).folder))
    voxels = np.stack([picture()[0]] * 2, -1)
    (answer,) = predict_volumes(
        segmenter, find_volumes([str(write(tmp_path / "a.nii", voxels))]), lambda *_: None
    )
    assert "reads volumes of 1 channels, and" in answer.error


def test_answers_that_are_no_numbers_are_said(config, changed):
    from qna.data.volumes import Grid, Volume
    from qna.eval import UnusableAnswers

    outcome = fit(changed(config, epochs=1))
    segmenter = load_volume_segmenter(str(outcome.folder))
    torch.nn.init.constant_(segmenter.network.network.heads[-1].bias, float("nan"))
    with pytest.raises(UnusableAnswers, match="NaN or infinity"):
        segment_volume(segmenter, Volume(np.ones((1, 4, 4, 4), np.float32), Grid((4, 4, 4), np.eye(4))))
    with pytest.raises(UnusableAnswers, match="NaN or infinity"):
        judge_volumes(segmenter, outcome.data)


def test_it_is_one_line_and_has_a_recipe():
    config = recipe_for(None, "volumes")
    assert config.images.data == "lesions"
    assert config.run.task == "volumes"
    assert TrainConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("options", "kind", "told"),
    [
        ({"model": "unet3d_nan"}, UnknownName, "unknown network of volumes 'unet3d_nan'; did you mean"),
        ({"model_kwargs": ("gate=add",)}, UnknownName, "unknown gate 'add'"),
        ({"model_kwargs": ("in_chans=2",)}, InvalidInput, "cannot set in_chans: it follows from the data"),
        ({"mixup": 0.5}, InvalidInput, "task volumes makes no use of mixup=0.5"),
        ({"dice": 2.0}, InvalidInput, "task volumes makes no use of dice=2.0: it belongs to segmentation"),
        ({"data": "mni152", "flip": True, "voxel": 8}, InvalidInput, "flip would train on what is held out"),
        ({"batch_size": 99}, InvalidInput, "choose a smaller batch size"),
        ({"data": "nowhere"}, InvalidInput, "data 'nowhere' was not found: looked for train/images"),
    ],
)
def test_what_is_refused(config, changed, options, kind, told):
    with pytest.raises(kind, match=told):
        fit(changed(config, **options))


def test_numbers_are_checked():
    with pytest.raises(InvalidInput, match=r"patch must have three sizes of at least 1, got \(8, 0, 8\)"):
        VolumeOptions(patch=(8, 0, 8))
    with pytest.raises(InvalidInput, match=r"foreground must be in \[0, 1\], got 2"):
        VolumeOptions(foreground=2)
    with pytest.raises(InvalidInput, match=r"overlap must be in \[0, 1\), got 1"):
        TrainConfig(volumes=VolumeOptions(overlap=1.0))
    with pytest.raises(InvalidInput, match="voxel must be at most 20, got 21"):
        TrainConfig(volumes=VolumeOptions(voxel=21))
