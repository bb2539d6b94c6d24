"""A run whose folder is taken away says what is true of it, and does not end as if all were well."""

import os
import signal

import pytest

from qna.train import Observer, RunStopped, fit


class At(Observer):
    """Does something after an update."""

    def __init__(self, step, act):
        self.step, self.act = step, act

    def update(self, step, epoch, loss):
        if step == self.step:
            self.act()


def test_a_checkpoint_whose_folder_was_renamed_is_not_called_whole(config):
    folder = config.run.out

    def rename():
        folder.rename(folder.with_name("elsewhere"))
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(RunStopped, match="put the folder back to go on, or begin again") as stopped:
        fit(config, At(3, rename))
    assert stopped.value.status != 0
    assert "is no longer there" in str(stopped.value)
    assert "is whole" not in str(stopped.value)


def test_a_run_whose_folder_was_emptied_does_not_end_well(config):
    def empty():
        for path in config.run.out.iterdir():
            if path.is_file():
                path.unlink()

    with pytest.raises(
        RunStopped, match=r"has lost files while the run was under way: config.json, log.jsonl"
    ):
        fit(config, At(4, empty))


def test_torch_gives_no_advice_on_workers(config, changed, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    # a warning would be an error here
    assert fit(changed(config, epochs=1, workers=2)).metrics["epochs"] == 1
