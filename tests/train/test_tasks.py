"""The loop trains what it has never heard of: regression on tensors, and a network with losses of its own."""

import hashlib
import json
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qna._core.errors import InvalidInput, UnknownName
from qna._core.with_losses import Supervised, WithLosses
from qna.data import evaluation_batches, training_batches
from qna.train import Observer, fit, resume
from qna.train.checkpoint import load_tensors
from qna.train.task import Headline
from qna.train.tasks import TASKS, TaskRow, build_task
from qna.train.tasks.classification import build_classifier


class ErrorTally:
    def __init__(self):
        self.error, self.count = 0.0, 0

    def add(self, output, batch):
        self.error += float((output.squeeze(1) - batch["target"]).square().sum())
        self.count += len(batch["target"])

    def reduce(self, summed, gathered):
        raise AssertionError("one process has nothing to reduce")

    def scores(self):
        return self.error / self.count, self.count


class Brightness:
    """Regression: how much of an image is lit. Batches are dicts."""

    headline = Headline("error", ".1e")

    def load(self, config):
        self.config = config
        g = torch.Generator().manual_seed(0)
        # light up to an edge: norms would take away the brightness of an even image
        images = (
            (torch.rand(24, 1, 1, 1, generator=g) > torch.linspace(0, 1, 32)).float().expand(-1, -1, 32, -1)
        )
        return SimpleNamespace(name="brightness", train=images[:16], held_out=images[16:])

    def build_network(self, options, data):
        return build_classifier(options, classes=1, channels=1, image_size=32)

    def fingerprint(self, data):
        return {
            "images": len(data.train),
            "digest": hashlib.md5(data.train.contiguous().numpy().tobytes()).hexdigest(),
        }

    def about(self, data):
        return {"task": "brightness"}

    @staticmethod
    def prepare(images, indices, seed):
        return {"image": images[indices], "target": images[indices].mean((1, 2, 3))}

    def training_batches(self, data, order, epoch, start):
        return training_batches(data.train, self.prepare, order, epoch=epoch, start=start)

    def held_out_batches(self, data, rank, world):
        return evaluation_batches(data.held_out, self.prepare, 5, rank=rank, world=world)

    def examples(self, batch):
        return len(batch["target"])

    def unreadable(self, batch):
        return []

    def varied(self, batch, seed):
        noise = torch.randn(batch["image"].shape, generator=torch.Generator().manual_seed(seed))
        return {**batch, "image": batch["image"] + 0.01 * noise}

    def inputs(self, batch):
        return (batch["image"],)

    def loss(self, output, batch, seed):
        return F.mse_loss(output.squeeze(1), batch["target"])

    def tally(self, device):
        return ErrorTally()

    def report(self, scores):
        error, count = scores
        return {"held_out": count, "loss": error, "error": error}


@pytest.fixture
def toy(config, changed, monkeypatch):
    monkeypatch.setitem(TASKS, "brightness", TaskRow("brightness", "how bright", Brightness))
    return changed(config, task="brightness", epochs=6, batch_size=4, save_every=1, lr=0.05, ema=0.5)


class Crash(Observer):
    def update(self, step, epoch, loss):
        if step == 3:
            raise KeyboardInterrupt


def log(folder):
    events = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in event.items() if k != "seconds"} for event in events]


def test_a_task_that_the_loop_does_not_know_learns_and_goes_on_bit_for_bit(toy):
    whole = fit(toy)
    assert whole.metrics["held_out"] == 8
    # a constant guess cannot do better than the variance
    spread = float(whole.data.held_out.mean((1, 2, 3)).var(correction=0))
    assert whole.metrics["error"] < spread / 4
    assert [record["error"] for record in whole.history] == [record["loss"] for record in whole.history]
    with pytest.raises(KeyboardInterrupt):
        fit(toy, Crash())
    again = resume(whole.folder.with_name("run-2"))
    assert log(again.folder) == log(whole.folder)
    for name in ("model.safetensors", "checkpoint.safetensors"):
        a, b = load_tensors(again.folder / name)[0], load_tensors(whole.folder / name)[0]
        assert all(torch.equal(a[key], b[key]) for key in a)


class Balanced(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        output = self.network(x)
        return WithLosses(output, {"balance": output.square().mean()}) if self.training else output


def test_losses_of_the_network_are_added_and_logged_by_name(toy, monkeypatch):
    build = Brightness.build_network
    monkeypatch.setattr(Brightness, "build_network", lambda *given: Balanced(build(*given)))
    original, own = Brightness.loss, []

    def noted(self, output, batch, seed):
        loss = original(self, output, batch, seed)
        own.append((float(loss.detach()), float(output.detach().square().mean())))
        return loss

    monkeypatch.setattr(Brightness, "loss", noted)
    outcome = fit(toy)
    updates = [event for event in log(outcome.folder) if event["event"] == "update"]
    assert [u["loss/balance"] for u in updates] == pytest.approx([balance for _, balance in own])
    assert [u["loss"] for u in updates] == pytest.approx([loss + balance for loss, balance in own])


class Overviewed(Balanced):
    def forward(self, x):
        output = self.network(x)
        return WithLosses(output, {}, {"aux": Supervised(2 * output, 0.4)}) if self.training else output


def test_further_outputs_are_judged_by_the_task_and_weighed(toy, monkeypatch):
    build = Brightness.build_network
    monkeypatch.setattr(Brightness, "build_network", lambda *given: Overviewed(build(*given)))
    original, losses = Brightness.loss, []

    def noted(self, output, batch, seed):
        loss = original(self, output, batch, seed)
        losses.append(float(loss.detach()))
        return loss

    monkeypatch.setattr(Brightness, "loss", noted)
    outcome = fit(toy)
    updates = [event for event in log(outcome.folder) if event["event"] == "update"]
    # of every step first that of the output
    assert [u["loss/aux"] for u in updates] == pytest.approx([0.4 * loss for loss in losses[1::2]])
    both = zip(losses[::2], losses[1::2], strict=True)
    assert [u["loss"] for u in updates] == pytest.approx([loss + 0.4 * aux for loss, aux in both])


@pytest.mark.parametrize("mixed", [False, True])
def test_a_head_on_every_position_is_told_the_label_of_its_image(mixed):
    """The mean over positions; not the loss of their mean, which is less."""
    torch.manual_seed(0)
    task, output = build_task("classification"), torch.randn(3, 2, 4, 5)
    task.config = SimpleNamespace(augment=SimpleNamespace(smoothing=0.1))
    task.mixer = SimpleNamespace(smooths=mixed)
    labels = torch.rand(3, 5).softmax(1) if mixed else torch.tensor([4, 0, 2])
    batch = SimpleNamespace(labels=labels)
    alone = [task.loss(output[:, i, j], batch, 0) for i in range(2) for j in range(4)]
    torch.testing.assert_close(task.loss(output, batch, 0), torch.stack(alone).mean())
    assert task.loss(output.mean((1, 2)), batch, 0) < task.loss(output, batch, 0) - 0.1


def test_a_task_is_named_with_the_nearest():
    with pytest.raises(UnknownName, match="unknown task 'clasification'; did you mean 'classification'"):
        build_task("clasification")


def edit(folder, **options):
    raw = json.loads((folder / "config.json").read_text())
    for group in raw.values():
        group.update({name: options[name] for name in options if name in group})
    (folder / "config.json").write_text(json.dumps(raw))


def test_a_run_whose_options_changed_goes_on_only_if_one_insists(config):
    folder = fit(config).folder
    edit(folder, lr=0.5, workers=1)
    said = r"would not go on as it began: lr was 0.02 and is 0.5; put that back, or insist with .* --anyway`"
    with pytest.raises(InvalidInput, match=said):
        resume(folder)
    edit(folder, epochs=3, workers=0)
    assert len(resume(folder, anyway=True).history) == 3
    # what was insisted on holds from then on
    assert resume(folder).metrics["epochs"] == 3


def test_a_run_whose_data_changed_is_refused(toy, monkeypatch):
    folder = fit(toy).folder
    original = Brightness.load

    def more(self, config):
        data = original(self, config)
        data.train = torch.cat([data.train, data.train[:8]])
        return data

    monkeypatch.setattr(Brightness, "load", more)
    with pytest.raises(InvalidInput, match=r"began: images was 16 and is 24; digest was"):
        resume(folder)


def test_a_checkpoint_without_a_fingerprint_goes_on(config):
    from qna.train.checkpoint import save_tensors

    folder = fit(config).folder
    tensors, about = load_tensors(folder / "checkpoint.safetensors")
    del about["fingerprint"]
    save_tensors(folder / "checkpoint.safetensors", tensors, about)
    assert len(resume(folder).history) == 2
