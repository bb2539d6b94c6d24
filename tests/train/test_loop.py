import json

import pytest
import torch
from PIL import Image

from qna._core.errors import InvalidInput, UnknownName
from qna.data import Preparation
from qna.train import Observer, TrainConfig, fit, resume
from qna.train.checkpoint import load_tensors
from qna.train.fitting import load_whole
from qna.train.tasks.classification import build_classifier


class Recorder(Observer):
    def __init__(self):
        self.losses, self.records = [], []

    def update(self, step, epoch, loss):
        self.losses.append(loss)

    def epoch(self, record):
        self.records.append(record)


def lines(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_loss_falls_and_the_folder_is_complete(config, changed):
    recorder = Recorder()
    outcome = fit(changed(config, epochs=8), recorder)
    assert recorder.losses[-1] < 0.7 * recorder.losses[0]
    assert outcome.scores.top1 == 1.0
    assert outcome.scores.images == 11
    names = {path.name for path in outcome.folder.iterdir()}
    assert names == {
        "checkpoint.safetensors",
        "config.json",
        "log.jsonl",
        "metrics.json",
        "model.safetensors",
    }
    metrics = json.loads((outcome.folder / "metrics.json").read_text())
    assert metrics["right"] == metrics["held_out"] == 11
    updates = [line for line in lines(outcome.folder) if line["event"] == "update"]
    assert [line["loss"] for line in updates] == recorder.losses
    assert [line["step"] for line in updates] == list(range(1, 17))
    # 2 updates of warm-up to 0.02 * 8 / 256
    assert [line["lr"] for line in updates[:3]] == [0.0, 0.02 * 8 / 256 / 2, 0.02 * 8 / 256]


def test_equal_seeds_give_equal_runs_and_others_do_not(config, changed):
    first, again, other = Recorder(), Recorder(), Recorder()
    a, b = fit(config, first), fit(config, again)
    fit(changed(config, seed=1), other)
    assert first.losses == again.losses
    assert first.losses != other.losses
    assert all(
        torch.equal(x, y)
        for x, y in zip(a.network.state_dict().values(), b.network.state_dict().values(), strict=True)
    )


def test_a_run_leaves_the_callers_random_numbers_alone(config):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(config)
    assert torch.equal(torch.rand(3), expected)


def test_the_weights_reload_to_identical_outputs(config):
    outcome = fit(config)
    network = build_classifier(config.network, classes=2, channels=1, image_size=32)
    tensors, about = load_tensors(outcome.folder / "model.safetensors")
    load_whole(network, tensors, "the file")
    assert TrainConfig.from_json(json.dumps(about["config"])) == config
    view = Preparation(32, outcome.data.mean, outcome.data.std)
    images = view(outcome.data.held_out, range(11)).images
    with torch.no_grad():
        assert torch.equal(network.eval()(images), outcome.network.eval()(images))


def test_the_written_configuration_runs_again_to_the_same_result(config):
    first = fit(config)
    again = fit(TrainConfig.from_file(first.folder / "config.json"))
    assert again.folder != first.folder
    assert again.history[-1]["train_loss"] == first.history[-1]["train_loss"]


def test_a_folder_in_use_is_never_written_to(config):
    config.run.out.mkdir()
    (config.run.out / "mine.txt").write_text("precious")
    outcome = fit(config)
    assert outcome.folder == config.run.out.with_name("run-2")
    assert [p.name for p in config.run.out.iterdir()] == ["mine.txt"]
    assert fit(config).folder.name == "run-3"


def test_the_running_average_is_what_is_kept(config, changed):
    averaged, plain = fit(config), fit(changed(config, ema=0.0))
    pairs = zip(averaged.network.parameters(), plain.network.parameters(), strict=True)
    assert averaged.history[0]["train_loss"] == plain.history[0]["train_loss"]
    assert not all(torch.equal(a, b) for a, b in pairs)


def test_workers_change_nothing(config, changed):
    alone, helped = Recorder(), Recorder()
    fit(changed(config, epochs=1), alone)
    fit(changed(config, epochs=1, workers=2), helped)
    assert alone.losses == helped.losses


def test_bf16_learns(config, changed):
    recorder = Recorder()
    fit(changed(config, epochs=8, precision="bf16"), recorder)
    assert recorder.losses[-1] < 0.7 * recorder.losses[0]


def test_a_model_that_takes_any_size_and_one_that_refuses(config, changed):
    assert build_classifier(
        changed(config, model="test_convnext").network, classes=2, channels=1, image_size=32
    )
    with pytest.raises(InvalidInput, match=r"model 'test_vit_relpos' cannot be built with .*img_size=1.*: "):
        build_classifier(
            changed(config, model="test_vit_relpos").network, classes=2, channels=1, image_size=1
        )


def test_a_size_that_the_model_refuses_is_named_before_anything_is_written(config, changed):
    with pytest.raises(
        InvalidInput, match=r"model 'test_vit' cannot read images of 28x28: Input height \(28\)"
    ):
        fit(changed(config, image_size=28))
    assert not config.run.out.exists()


def test_an_unknown_model_names_the_nearest(config, changed):
    with pytest.raises(UnknownName, match="unknown model 'test_vitt'; did you mean 'test_vit'"):
        fit(changed(config, model="test_vitt"))
    assert not config.run.out.exists()


def test_a_name_that_is_near_nothing_does_not_bring_a_thousand_others(config, changed):
    with pytest.raises(UnknownName, match=r"unknown model '-'; none of the 1,\d+ known names is near it"):
        fit(changed(config, model="-"))


@pytest.fixture
def damaged(tmp_path):
    """Photographs in two classes, and the paths of the two that cannot be read."""
    for part in ("train", "val"):
        for name, colour in (("dark", 20), ("light", 220)):
            (tmp_path / "photos" / part / name).mkdir(parents=True)
            for i in range(5):
                path = tmp_path / "photos" / part / name / f"{i}.png"
                Image.new("RGB", (40, 32), (colour,) * 3).save(path)
    bad = [tmp_path / "photos" / p for p in ("train/light/4.png", "val/dark/0.png")]
    for path in bad:
        path.write_bytes(path.read_bytes()[:50])
    return tmp_path / "photos", bad


def test_unreadable_images_are_named_once_and_counted(config, changed, damaged):
    photos, bad = damaged
    told = []

    class Listener(Observer):
        def unreadable(self, line):
            told.append(line)

    outcome = fit(changed(config, data=str(photos), batch_size=10), Listener())
    assert sorted(line.partition(": ")[0] for line in told) == sorted(map(str, bad))
    assert outcome.metrics["unreadable"] == 2
    assert outcome.scores.images == 9
    assert [line["image"] for line in lines(outcome.folder) if line["event"] == "unreadable"] == told


def test_a_run_that_goes_on_remembers_the_unreadable_images(config, changed, damaged):
    photos, _ = damaged
    first = changed(config, data=str(photos), batch_size=4, epochs=2)
    whole = fit(first)

    class Stopper(Observer):
        def epoch(self, record):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(first, Stopper())
    again = resume(whole.folder.with_name("run-2"))
    assert again.metrics["unreadable"] == whole.metrics["unreadable"] == 2
    events = [line["event"] for line in lines(again.folder)]
    assert events == [line["event"] for line in lines(whole.folder)]
