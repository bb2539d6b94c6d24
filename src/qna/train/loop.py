"""The training loop: every update is a function of the configuration, the weights and the update's number.

What is learned is the task's; checkpoints, signals, logs and going on bit for bit come from here for all.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qna._core.errors import InvalidInput
from qna._core.files import remove_leftovers, write_text
from qna._core.seeds import derive_seed, seeded
from qna.data import TrainingOrder
from qna.models.bounds import of_file
from qna.parts.protocols import FollowsEpochs
from qna.train import setup, sharding
from qna.train.checkpoint import CHECKPOINT, SHARDED_CHECKPOINT, WEIGHTS, Progress, Saved, save_weights
from qna.train.config import NetworkOptions, TrainConfig
from qna.train.evaluation import judge_task
from qna.train.fingerprint import changes, fingerprint_of
from qna.train.folder import CONFIG, LOG, METRICS, Journal, claim_folder, cut_log
from qna.train.learner import Learner
from qna.train.network import train_mode
from qna.train.optimizer import learning_rate
from qna.train.outcome import Observer, Outcome
from qna.train.sentences import Sentences
from qna.train.stop import StopRequest
from qna.train.tasks import build_task, check_options
from qna.train.update import NotFinite, groups, make_update


def fit(config: TrainConfig, observer: Observer | None = None) -> Outcome:
    """Train as `config` says and write checkpoint, weights, configuration, log and metrics to a new folder.

    Raises:
        InvalidInput: if the configuration names something that does not exist or does not fit.
        RunStopped: if a signal, a full disk or a loss that is not finite ended it; what was saved is whole.
    """
    with seeded(derive_seed(config.run.seed, "run")), setup.threads(config.run.threads):
        run = Training(config, observer or Observer())
        run.claim()
        return run.go_on()


def resume(folder: Path, observer: Observer | None = None, *, anyway: bool = False) -> Outcome:
    """Go on with the run in `folder` from its last checkpoint; the result is that of a run without the break.

    Args:
        folder: of the run.
        observer: is told what happens.
        anyway: go on even if data or configuration are not those that the run began with.

    Raises:
        InvalidInput: if there is no run that can go on, or something changed; it is named.
        RunStopped: as `fit`.
    """
    saved = any((folder / name).is_file() for name in (CHECKPOINT, SHARDED_CHECKPOINT))
    if not (folder / CONFIG).is_file() or not saved:
        raise InvalidInput(f"no run to go on with in {folder}: it needs {CONFIG} and {CHECKPOINT}")
    config = TrainConfig.from_file(folder / CONFIG)
    with seeded(derive_seed(config.run.seed, "run")), setup.threads(config.run.threads):
        # the checkpoint has all weights, and the file that they started from may be gone
        network = replace(config.network, weights=None, pretrained=False)
        with of_file(sum(part.stat().st_size for part in folder.rglob("*.safetensors"))):
            run = Training(replace(config, network=network), observer or Observer())
        run.restore(folder, anyway=anyway)
        return run.go_on()


class Training:
    """A run: task, data, what learns, and how far it is.

    Args:
        config: what to do.
        observer: is told what happens.

    Attributes:
        folder: where the results go, once it has been claimed.
        total_steps: updates that the whole run makes.
    """

    folder: Path
    journal: Journal
    say: Sentences

    def __init__(self, config: TrainConfig, observer: Observer):
        self.config, self.observer, o = config, observer, config.optim
        check_options(config)
        self.task = build_task(config.run.task)
        self.accelerator = setup.build_accelerator(config)
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        sharding.check_sharding(config, world)
        self.data = self.task.load(config)
        total = len(self.data.train)
        self.order = TrainingOrder(total, o.batch_size, config.run.seed, rank, world, o.accumulate)
        self.learner = Learner(config, self.accelerator, self._network)
        self.fingerprint = fingerprint_of(config, self.task.fingerprint(self.data))
        self.steps_per_epoch = len(self.order) // o.accumulate
        self.total_steps = self.steps_per_epoch * o.epochs
        self.peak = o.lr * o.batch_size * o.accumulate * world / 256
        self.progress = Progress(processes=world)
        self._told: set[str] = set()
        self._to_tell: list[str] = []

    def _network(self, options: NetworkOptions) -> nn.Module:
        return self.task.build_network(options, self.data)

    def claim(self) -> None:
        """Take a new folder and write the configuration and a first checkpoint."""
        model = self.config.network.model.replace("/", "-").replace(":", "-")
        data = Path(self.config.images.data).name
        wanted = self.config.run.out or Path("runs") / f"{data}-{model}"
        is_main = self.accelerator.is_main_process
        self._settle(setup.from_main_process(claim_folder(wanted) if is_main else None))
        if is_main:
            with self.say.writing():
                write_text(self.folder / CONFIG, self.config.to_json())
        self.save()

    def restore(self, folder: Path, *, anyway: bool = False) -> None:
        """Take the state of the run in `folder`; what its log says of later updates is cut off."""
        self._settle(folder)
        saved = self.learner.load(folder, lambda saved: self._check(saved, anyway=anyway))
        self.progress = saved.progress
        self.say.saved = self.progress.step
        if self.accelerator.is_main_process:
            with self.say.writing():
                remove_leftovers(folder)
                past = cut_log(folder / LOG, self.progress.step, self.progress.epoch)
            self._told = {event["image"] for event in past if event["event"] == "unreadable"}

    def _settle(self, folder: Path) -> None:
        self.folder, self.say = folder, Sentences(folder, self.learner.checkpoint, self.total_steps)

    def _check(self, saved: Saved, *, anyway: bool) -> None:
        """Refuse a checkpoint of other processes, and one of other data or options unless told not to."""
        progress, now = saved.progress, self.order.world
        if progress.processes != now:
            before, folder = progress.processes, self.folder
            raise InvalidInput(
                f"the number of processes must stay: the run in {folder} had {before}, here it is {now}; "
                f"go on with `torchrun --nproc-per-node {before} -m qna train --resume {folder}`"
            )
        names = ("epoch", "step", "lr", "train_loss", "loss", self.task.headline.name)
        for record in progress.history:
            for name in names:
                if type(record.get(name)) not in (int, float) or not math.isfinite(record[name]):
                    raise InvalidInput(
                        f"an epoch's record of the checkpoint in {self.folder} has no number {name!r}"
                    )
        if anyway:
            return
        found = changes(saved.fingerprint or {}, self.fingerprint)
        expected = progress.epoch * self.steps_per_epoch + progress.step_in_epoch
        if not found and expected != progress.step:
            found = [f"update {progress.step} was in epoch {progress.epoch + 1} and would not be"]
        if found:
            raise InvalidInput(
                f"the run in {self.folder} would not go on as it began: {'; '.join(found)}; "
                f"put that back, or insist with `qna train --resume {self.folder} --anyway`"
            )

    def go_on(self) -> Outcome:
        """Train what is left of the epochs and write what came of it."""
        with self.say.writing():
            self.journal = Journal(
                self.folder if self.accelerator.is_main_process else None,
                tensorboard=self.config.run.tensorboard,
            )
        self.observer.begin(self)
        scores = None
        try:
            with StopRequest() as stop:
                while self.progress.epoch < self.config.optim.epochs:
                    scores = self._epoch(stop)
            return self._finish(self.evaluate() if scores is None else scores)
        finally:
            self.journal.close()

    def _epoch(self, stop: StopRequest) -> Any:
        progress, accumulate = self.progress, self.config.optim.accumulate
        self._clock = time.perf_counter()
        start = progress.step_in_epoch * accumulate
        batches = self.task.training_batches(self.data, self.order, progress.epoch, start)
        train_mode(self.learner.network)
        for module in self.learner.network.modules():
            if isinstance(module, FollowsEpochs):
                module.begin_epoch(progress.epoch, self.config.optim.epochs)
        for group in groups(map(self._noted, batches), accumulate):
            asked = self._update(group, stop)
            self._tick()
            if asked:
                self.save()
                raise self.say.stopped(asked)
            if self.config.run.save_every and progress.step % self.config.run.save_every == 0:
                self.save()
        scores = self.evaluate()
        self._tell_unreadable(setup.from_all_processes(self._to_tell))
        self._tick()
        report, headline = self.task.report(scores), self.task.headline.name
        record = {
            "epoch": progress.epoch + 1,
            "step": progress.step,
            "lr": self._rate(progress.step - 1),
            "train_loss": progress.loss_sum / progress.images,
            "loss": report["loss"],
            headline: report[headline],
            "seconds": round(progress.seconds, 3),
        }
        progress.history.append(record)
        progress.epoch, progress.step_in_epoch = progress.epoch + 1, 0
        progress.loss_sum, progress.images = 0.0, 0
        self._log("epoch", **record)
        self.save()
        self.observer.epoch(record)
        return scores

    def _update(self, group: list[Any], stop: StopRequest) -> int:
        """Make one update from `group`; return the signal that asks to stop after it, or 0."""
        progress, signalled = self.progress, stop.signal or 0
        rate = self._rate(progress.step)
        try:
            step = progress.step
            update = make_update(self.learner, self.task, group, step=step, rate=rate, signalled=signalled)
        except NotFinite as error:
            raise self.say.diverged(error, progress, rate) from None
        progress.step += 1
        progress.step_in_epoch += 1
        progress.loss_sum += update.loss_sum
        progress.images += update.examples
        epoch, parts = progress.epoch + 1, {f"loss/{name}": v for name, v in update.part_means.items()}
        self._log("update", step=progress.step, epoch=epoch, lr=rate, loss=update.loss, **parts)
        self.observer.update(progress.step, epoch, update.loss)
        return update.asked if self.order.world > 1 else stop.signal or 0

    def _rate(self, step: int) -> float:
        o = self.config.optim
        warmup = round(o.warmup_epochs * self.steps_per_epoch)
        return learning_rate(step, peak=self.peak, warmup=warmup, total=self.total_steps, schedule=o.schedule)

    def evaluate(self) -> Any:
        """Judge the network on every held-out example once, over all processes."""
        batches = self.task.held_out_batches(self.data, self.order.rank, self.order.world)
        return judge_task(self.learner, self.task, map(self._noted, batches))

    def save(self) -> None:
        """Write a checkpoint.

        Raises:
            RunStopped: if the weights are not finite or the disk is full; the checkpoint before is kept.
        """
        if not self.learner.is_finite():
            rate = self._rate(self.progress.step)
            raise self.say.diverged("a weight is not finite", self.progress, rate)
        with self.say.writing():
            self.learner.save(self.folder, Saved(self.progress, fingerprint=self.fingerprint))
        self.say.saved = self.progress.step

    def _finish(self, scores: Any) -> Outcome:
        config, network, report = self.config, self.learner.evaluated(), self.task.report(scores)
        tables = {name: value for name, value in report.items() if isinstance(value, dict | list | tuple)}
        metrics = {
            "model": config.network.model,
            "parameters": self.learner.parameters,
            "data": self.data.name,
            "trained_on": len(self.data.train),
            "held_out": report["held_out"],
            "unreadable": len(self._told),
            **{name: value for name, value in report.items() if name not in tables},
            "epochs": config.optim.epochs,
            "seconds": round(self.progress.seconds, 3),
            "device": str(self.learner.device),
            "torch": torch.__version__,
            **tables,
        }
        if self.accelerator.is_main_process:
            with self.say.writing():
                save_weights(self.folder / WEIGHTS, network, self.task.about(self.data))
                write_text(self.folder / METRICS, json.dumps(metrics, indent=2) + "\n")
            needed = (CONFIG, LOG, self.learner.checkpoint)
            if missing := [name for name in needed if not (self.folder / name).is_file()]:
                raise self.say.incomplete(missing)
        history = self.progress.history
        return Outcome(self.folder, config, network, self.task, self.data, scores, history, metrics)

    def _noted(self, batch: Any) -> Any:
        """A batch whose unreadable examples are, or will be, told."""
        self._to_tell += self.task.unreadable(batch)
        if self.order.world == 1:
            self._tell_unreadable(self._to_tell)
        return batch

    def _tell_unreadable(self, lines: list[str]) -> None:
        """Name each example once; other processes' are told after each epoch."""
        for line in dict.fromkeys(lines):
            if line not in self._told:
                self._told.add(line)
                self._log("unreadable", step=self.progress.step, image=line)
                self.observer.unreadable(line)
        self._to_tell = []

    def _tick(self) -> None:
        """Count the time since the last call."""
        begun, self._clock = self._clock, time.perf_counter()
        self.progress.seconds += self._clock - begun

    def _log(self, event: str, **values: Any) -> None:
        with self.say.writing():
            self.journal.write(event, **values)
