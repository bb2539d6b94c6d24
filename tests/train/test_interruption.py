"""A run that is stopped at any moment goes on bit for bit, seen from inside one process."""

import os
import signal

import pytest

from qna._core.errors import InvalidInput
from qna.train import Observer, RunStopped, fit, learner, resume
from qna.train.checkpoint import load_tensors, save_tensors
from qna.train.loop import Training
from qna.train.tasks import Classification
from tests.train.stopping import assert_same_end


class Losses(Observer):
    """Keeps the losses; at update `at` calls `then`."""

    def __init__(self, at=None, then=None):
        self.losses, self.at, self.then = {}, at, then

    def update(self, step, epoch, loss):
        assert step not in self.losses
        self.losses[step] = loss
        if step == self.at:
            self.then()


def send(number):
    return lambda: os.kill(os.getpid(), number)


@pytest.fixture
def varied(config, changed):
    """A run in which everything random takes part: movements, mixing, erasing, residual branches, average."""
    return changed(
        config,
        epochs=3,
        batch_size=4,
        accumulate=2,
        mixup=0.8,
        cutmix=1.0,
        erase=0.5,
        crop=(0.5, 1.0),
        policy="rand-m9-mstd0.5",
        drop_path=0.3,
        clip=1.0,
        save_every=2,
    )


# 6 updates in 3 epochs: the second epoch is under way after update 3 and ends with update 4
@pytest.mark.parametrize("at", [3, 4])
def test_a_signal_ends_after_the_update_and_the_rest_is_bit_for_bit(varied, at):
    whole = Losses()
    expected = fit(varied, whole)
    first, rest = Losses(at, send(signal.SIGTERM)), Losses()
    before = signal.getsignal(signal.SIGTERM)
    said = rf"stopped by SIGTERM; .*up to update {at} of 6; .*--resume"
    with pytest.raises(RunStopped, match=said) as stopped:
        fit(varied, first)
    assert stopped.value.status == 143
    assert signal.getsignal(signal.SIGTERM) is before
    folder = expected.folder.with_name("run-2")
    outcome = resume(folder, rest)
    assert {**first.losses, **rest.losses} == whole.losses
    assert not set(first.losses) & set(rest.losses)
    assert_same_end(outcome.folder, expected.folder)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", [1, 3])
def test_after_a_crash_the_run_goes_on_from_its_last_checkpoint(varied, at):
    def crash():
        raise Killed

    expected = fit(varied, whole := Losses())
    with pytest.raises(Killed):
        fit(varied, Losses(at, crash))
    folder = expected.folder.with_name("run-2")
    # a line cut short and a temporary file, as a crash may leave them
    with (folder / "log.jsonl").open("a") as file:
        file.write('{"event": "upd')
    (folder / ".checkpoint.safetensors.1.tmp").write_bytes(b"half")
    outcome = resume(folder, rest := Losses())
    # the last checkpoint is after an even update or an epoch, which is the same here
    assert min(rest.losses) == (at - 1) // 2 * 2 + 1
    assert rest.losses == {step: whole.losses[step] for step in rest.losses}
    assert_same_end(outcome.folder, expected.folder)
    assert not list(folder.glob(".*"))


def test_a_run_that_ended_just_before_its_results_were_written_gets_them(varied):
    expected = fit(varied)
    for name in ("metrics.json", "model.safetensors"):
        (expected.folder / name).unlink()
    again = resume(expected.folder)
    assert again.scores == expected.scores
    assert again.history == expected.history
    assert (expected.folder / "metrics.json").exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_weights_take_it(config, changed, bad, monkeypatch):
    original, calls = Classification.loss, []

    def poisoned(self, output, batch, seed):
        calls.append(seed)
        loss = original(self, output, batch, seed)
        return loss * bad if len(calls) == 4 else loss

    monkeypatch.setattr(Classification, "loss", poisoned)
    where = r"at update 4 \(learning rate 0.000313, epoch 2\); .*up to update 2 of 4; try a lower --lr"
    with pytest.raises(RunStopped, match=f"the loss is {bad} {where}") as stopped:
        fit(config)
    assert stopped.value.status == 1
    tensors, about = load_tensors(config.run.out / "checkpoint.safetensors")
    assert about["progress"]["step"] == 2
    assert all(t.isfinite().all() for t in tensors.values())


def test_weights_that_are_not_finite_are_never_saved(config, changed, monkeypatch):
    original = Training._update

    def poisoned(self, group, stop):
        asked = original(self, group, stop)
        if self.progress.step == 4:
            next(self.learner.network.parameters()).data.view(-1)[0] = float("nan")
        return asked

    monkeypatch.setattr(Training, "_update", poisoned)
    with pytest.raises(RunStopped, match=r"a weight is not finite at update 5 .*up to update 2 of 4"):
        fit(config)
    tensors, _ = load_tensors(config.run.out / "checkpoint.safetensors")
    assert all(t.isfinite().all() for t in tensors.values())


@pytest.mark.parametrize(
    ("at", "said"),
    [
        (1, "nothing has been saved yet; begin again where there is room"),
        (3, "up to update 2 of 4; go on with `qna train --resume"),
    ],
)
def test_a_disk_that_is_full_stops_with_the_last_checkpoint_named(config, monkeypatch, at, said):
    original, calls = learner.save_checkpoint, []

    def full(path, **state):
        calls.append(path)
        if len(calls) == at:
            raise OSError(28, "No space left on device")
        original(path, **state)

    with monkeypatch.context() as patch:
        patch.setattr(learner, "save_checkpoint", full)
        with pytest.raises(RunStopped, match=rf"cannot write to .*run: .*No space left.*{said}"):
            fit(config)
    if at > 1:
        assert resume(config.run.out).metrics["epochs"] == 2


def test_a_folder_without_a_run_is_refused(tmp_path, config):
    with pytest.raises(
        InvalidInput, match=r"no run to go on with in .*: it needs config.json and checkpoint"
    ):
        resume(tmp_path)
    outcome = fit(config)
    (outcome.folder / "checkpoint.safetensors").write_bytes(b"damaged")
    with pytest.raises(InvalidInput, match="is not a checkpoint of qna"):
        resume(outcome.folder)


def test_a_run_goes_on_with_as_many_processes_as_it_had(config):
    path = fit(config).folder / "checkpoint.safetensors"
    tensors, about = load_tensors(path)
    about["progress"]["processes"] = 2
    save_tensors(path, tensors, about)
    said = r"processes must stay: the run in .* had 2, here it is 1; go on with `torchrun --nproc-per-node 2 "
    with pytest.raises(InvalidInput, match=said):
        resume(path.parent)
