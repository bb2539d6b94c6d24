"""The training loop: every update is a function of the configuration, the weights and the update's number."""

from __future__ import annotations

import itertools
import json
import math
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from qna._core.errors import InvalidInput
from qna._core.files import remove_leftovers, write_text
from qna._core.seeds import derive_seed, seeded
from qna.data import Batch, TrainingOrder, evaluation_batches, load_data, training_batches
from qna.eval import Scores, evaluate
from qna.train import setup, sharding
from qna.train.checkpoint import (
    CHECKPOINT,
    SHARDED_CHECKPOINT,
    WEIGHTS,
    Progress,
    load_checkpoint,
    save_checkpoint,
    save_weights,
)
from qna.train.config import NetworkOptions, TrainConfig
from qna.train.folder import CONFIG, LOG, METRICS, Journal, claim_folder, cut_log
from qna.train.mixing import BatchMixer
from qna.train.network import build_network, train_mode
from qna.train.optimizer import build_optimizer, learning_rate
from qna.train.outcome import Observer, Outcome
from qna.train.stop import RunStopped, StopRequest


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


def resume(folder: Path, observer: Observer | None = None) -> Outcome:
    """Go on with the run in `folder` from its last checkpoint; the result is that of a run without the break.

    Raises:
        InvalidInput: if there is no run that can go on.
        RunStopped: as `fit`.
    """
    saved = any((folder / name).is_file() for name in (CHECKPOINT, SHARDED_CHECKPOINT))
    if not (folder / CONFIG).is_file() or not saved:
        raise InvalidInput(f"no run to go on with in {folder}: it needs {CONFIG} and {CHECKPOINT}")
    config = TrainConfig.from_file(folder / CONFIG)
    with seeded(derive_seed(config.run.seed, "run")), setup.threads(config.run.threads):
        # the checkpoint has all weights, and the file that they started from may be gone
        network = replace(config.network, weights=None, pretrained=False)
        run = Training(replace(config, network=network), observer or Observer())
        run.restore(folder)
        return run.go_on()


class Training:
    """A run: data, network, optimizer and how far it is.

    Args:
        config: what to do.
        observer: is told what happens.

    Attributes:
        folder: where the results go, once it has been claimed.
        total_steps: updates that the whole run makes.
    """

    folder: Path
    journal: Journal

    def __init__(self, config: TrainConfig, observer: Observer):
        self.config, self.observer = config, observer
        self.accelerator = setup.build_accelerator(config)
        self.device = self.accelerator.device
        sharding.check_sharding(config, self.accelerator.num_processes)
        self.is_sharded = config.run.sharding == "fsdp"
        images, o = config.images, config.optim
        self.data = load_data(images.data, images.data_dir, download=images.download)
        self.classes = len(self.data.classes)
        self.training_view = setup.training_view(config, self.data)
        self.plain_view = setup.plain_view(config, self.data)
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        total = len(self.data.train)
        self.order = TrainingOrder(total, o.batch_size, config.run.seed, rank, world, o.accumulate)
        self.network = self._build(config.network)
        self.average = setup.build_average(self.network, o.ema)
        if self.is_sharded:
            for network in [self.network] if self.average is None else [self.network, self.average.module]:
                sharding.shard(network, self.device)
        self.optimizer = build_optimizer(self.network, o)
        if self.is_sharded:
            self.model, self.stepper = self.network, self.accelerator.prepare(self.optimizer)
        else:
            self.model, self.stepper = self.accelerator.prepare(self.network, self.optimizer)
        if config.network.compile:
            self.model.compile()
        self.mixer = BatchMixer(config.augment, self.classes)
        self.steps_per_epoch = len(self.order) // o.accumulate
        self.total_steps = self.steps_per_epoch * o.epochs
        self.peak = o.lr * o.batch_size * o.accumulate * world / 256
        self.progress = Progress(processes=world)
        self._told: set[str] = set()
        self._to_tell: list[str] = []
        self._saved_step: int | None = None

    def evaluated(self) -> nn.Module:
        """The network that is evaluated and kept; of a sharded run a whole copy, made by all processes."""
        network = self.network if self.average is None else self.average.module
        if not self.is_sharded:
            return network
        weights = sharding.whole_weights(network)
        whole = self._build(replace(self.config.network, weights=None, pretrained=False))
        whole.load_state_dict(weights)
        return whole

    @property
    def checkpoint(self) -> Path:
        """The file that `--resume` goes on from."""
        return self.folder / (SHARDED_CHECKPOINT if self.is_sharded else CHECKPOINT)

    @property
    def parameters(self) -> int:
        """Numbers in the network's parameters."""
        return sum(p.numel() for p in self.network.parameters())

    def claim(self) -> None:
        """Take a new folder and write the configuration and a first checkpoint."""
        model = self.config.network.model.replace("/", "-").replace(":", "-")
        data = Path(self.config.images.data).name
        wanted = self.config.run.out or Path("runs") / f"{data}-{model}"
        if self.accelerator.is_main_process:
            self.folder = claim_folder(wanted)
            with self._writing():
                write_text(self.folder / CONFIG, self.config.to_json())
        self.folder = setup.from_main_process(getattr(self, "folder", None))
        self.save()

    def restore(self, folder: Path) -> None:
        """Take the state of the run in `folder`; what its log says of later updates is cut off."""
        self.folder = folder
        state = self._state()
        if self.is_sharded:
            from qna.train.sharded_checkpoint import load_sharded

            self.progress, scaler = load_sharded(self.checkpoint, **state), None
        else:
            self.progress, scaler = load_checkpoint(self.checkpoint, **state)
        before, now = self.progress.processes, self.order.world
        if before != now:
            raise InvalidInput(
                f"the number of processes must stay: the run in {folder} had {before}, here it is {now}; "
                f"go on with `torchrun --nproc-per-node {before} -m qna train --resume {folder}`"
            )
        if scaler is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(scaler)
        self._saved_step = self.progress.step
        if self.accelerator.is_main_process:
            with self._writing():
                remove_leftovers(folder)
                past = cut_log(folder / LOG, self.progress.step)
            self._told = {event["image"] for event in past if event["event"] == "unreadable"}

    def go_on(self) -> Outcome:
        """Train what is left of the epochs and write what came of it."""
        self.journal = Journal(
            self.folder if self.accelerator.is_main_process else None, tensorboard=self.config.run.tensorboard
        )
        self.observer.begin(self)
        scores = None
        try:
            with StopRequest() as stop:
                while self.progress.epoch < self.config.optim.epochs:
                    scores = self._epoch(stop)
            return self._finish(scores or self.evaluate())
        finally:
            self.journal.close()

    def _epoch(self, stop: StopRequest) -> Scores:
        progress, begun = self.progress, time.perf_counter()
        batches = training_batches(
            self.data.train,
            self.training_view,
            self.order,
            epoch=progress.epoch,
            start=progress.step_in_epoch * self.config.optim.accumulate,
            workers=self.config.images.workers,
        )
        train_mode(self.network)
        for group in _groups(batches, self.config.optim.accumulate):
            asked = self._update(group, stop)
            begun = self._clock(begun)
            if asked:
                self.save()
                text = f"stopped by {signal.Signals(asked).name}; {self._kept()}; {self._way_on()}"
                raise RunStopped(text, 128 + asked)
            if self.config.run.save_every and progress.step % self.config.run.save_every == 0:
                self.save()
        scores = self.evaluate()
        self._tell_unreadable(setup.from_all_processes(self._to_tell))
        self._clock(begun)
        record = {
            "epoch": progress.epoch + 1,
            "step": progress.step,
            "lr": self._rate(progress.step - 1),
            "train_loss": progress.loss_sum / progress.images,
            "loss": scores.loss,
            "top1": scores.top1,
            "seconds": round(progress.seconds, 3),
        }
        progress.history.append(record)
        progress.epoch, progress.step_in_epoch = progress.epoch + 1, 0
        progress.loss_sum, progress.images = 0.0, 0
        self._log("epoch", **record)
        self.save()
        self.observer.epoch(record)
        return scores

    def _update(self, group: list[Batch], stop: StopRequest) -> int:
        """Make one update from `group`; return the signal that asks to stop after it, or 0."""
        progress, config = self.progress, self.config
        rate = self._rate(progress.step)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = rate
        total, images = 0.0, sum(len(batch.labels) for batch in group)
        for number, batch in enumerate(group):
            self._note_skipped(batch)
            seed = derive_seed(config.run.seed, "update", progress.step, number, self.order.rank)
            # dropout and stochastic depth draw from here
            torch.manual_seed(seed)
            last = number == len(group) - 1
            # shards of the gradient are summed as they come: whole gradients would not fit
            with nullcontext() if last or self.is_sharded else self.accelerator.no_sync(self.model):
                loss = self._loss(batch, seed)
                self.accelerator.backward(loss * (len(batch.labels) / images))
            total += float(loss.detach()) * len(batch.labels)
        # all processes see the same sums, so that they stop together
        total, images, asked = self._over_processes(total, images, stop.signal or 0)
        if not math.isfinite(total):
            raise RunStopped(self._diverged(f"the loss is {total}"))
        if config.optim.clip:
            self.accelerator.clip_grad_norm_(self.model.parameters(), config.optim.clip)
        self.stepper.step()
        self.stepper.zero_grad(set_to_none=True)
        progress.step += 1
        progress.step_in_epoch += 1
        if self.average is not None:
            self.average.update(self.network, step=progress.step)
        progress.loss_sum += total
        progress.images += images
        epoch, loss = progress.epoch + 1, total / images
        self._log("update", step=progress.step, epoch=epoch, lr=rate, loss=loss)
        self.observer.update(progress.step, epoch, loss)
        return asked if self.order.world > 1 else stop.signal or 0

    def _over_processes(self, total: float, images: int, asked: int) -> tuple[float, int, int]:
        """Sums of loss and images over all processes, and the signal that any of them got."""
        if self.order.world == 1:
            return total, images, asked
        real = torch.float32 if self.device.type == "mps" else torch.float64
        sums = torch.tensor([total, images, bool(asked)], dtype=real, device=self.device)
        total, count, stopping = self.accelerator.reduce(sums).tolist()
        return total, int(count), asked or (signal.SIGTERM if stopping else 0)

    def _loss(self, batch: Batch, seed: int) -> torch.Tensor:
        images, targets = self.mixer(batch.images, batch.labels, seed)
        images = images.to(self.device)
        if self.config.network.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with self.accelerator.autocast():
            logits = self.model(images).float()
        smoothing = 0.0 if self.mixer.smooths else self.config.augment.smoothing
        return F.cross_entropy(logits, targets.to(self.device), label_smoothing=smoothing)

    def _rate(self, step: int) -> float:
        o = self.config.optim
        warmup = round(o.warmup_epochs * self.steps_per_epoch)
        return learning_rate(step, peak=self.peak, warmup=warmup, total=self.total_steps, schedule=o.schedule)

    def evaluate(self) -> Scores:
        """Judge the network on every held-out image once, over all processes."""
        batches = evaluation_batches(
            self.data.held_out,
            self.plain_view,
            self.config.optim.batch_size,
            rank=self.order.rank,
            world=self.order.world,
            workers=self.config.images.workers,
        )
        return evaluate(
            self.evaluated(),
            map(self._note_skipped, batches),
            self.classes,
            device=self.device,
            reduce=self.accelerator.reduce if self.order.world > 1 else None,
            autocast=self.accelerator.autocast,
        )

    def save(self) -> None:
        """Write a checkpoint.

        Raises:
            RunStopped: if the weights are not finite or the disk is full; the checkpoint before is kept.
        """
        finite = all(bool(sharding.local_part(p).isfinite().all()) for p in self.network.parameters())
        if not all(setup.from_all_processes([finite])):
            raise RunStopped(self._diverged("a weight is not finite"))
        state = self._state()
        with self._writing():
            if self.is_sharded:
                from qna.train.sharded_checkpoint import save_sharded

                save_sharded(self.checkpoint, **state, progress=self.progress)
            elif self.accelerator.is_main_process:
                scaler = self.accelerator.scaler
                scaled = None if scaler is None else scaler.state_dict()
                save_checkpoint(self.checkpoint, **state, scaler=scaled, progress=self.progress)
        self._saved_step = self.progress.step

    def _state(self) -> dict[str, Any]:
        """What a checkpoint keeps beside how far the run is."""
        average = None if self.average is None else self.average.module
        return {"network": self.network, "average": average, "optimizer": self.optimizer}

    def _build(self, options: NetworkOptions) -> nn.Module:
        size = self.config.images.image_size
        network = build_network(options, classes=self.classes, channels=self.data.channels, image_size=size)
        return network.to(self.device)

    def _finish(self, scores: Scores) -> Outcome:
        config, network = self.config, self.evaluated()
        metrics = {
            "model": config.network.model,
            "parameters": self.parameters,
            "data": self.data.name,
            "trained_on": len(self.data.train),
            "held_out": scores.images,
            "unreadable": len(self._told),
            "right": scores.right,
            "top1": scores.top1,
            "top5": scores.top5,
            "loss": scores.loss,
            "epochs": config.optim.epochs,
            "seconds": round(self.progress.seconds, 3),
            "device": str(self.device),
            "torch": torch.__version__,
            "confusion": scores.confusion,
            "classes": self.data.classes,
        }
        if self.accelerator.is_main_process:
            with self._writing():
                save_weights(self.folder / WEIGHTS, network, setup.about_weights(config, self.data))
                write_text(self.folder / METRICS, json.dumps(metrics, indent=2) + "\n")
        return Outcome(self.folder, config, network, self.data, scores, self.progress.history, metrics)

    def _note_skipped(self, batch: Batch) -> Batch:
        self._to_tell += batch.skipped
        if self.order.world == 1:
            self._tell_unreadable(self._to_tell)
        return batch

    def _tell_unreadable(self, lines: list[str]) -> None:
        """Name each image once; other processes' are told after each epoch."""
        for line in dict.fromkeys(lines):
            if line not in self._told:
                self._told.add(line)
                self._log("unreadable", step=self.progress.step, image=line)
                self.observer.unreadable(line)
        self._to_tell = []

    def _clock(self, begun: float) -> float:
        now = time.perf_counter()
        self.progress.seconds += now - begun
        return now

    def _diverged(self, what: str) -> str:
        p = self.progress
        where = f"update {p.step + 1} (learning rate {self._rate(p.step):.3g}, epoch {p.epoch + 1})"
        # going on would make the same draws and end the same way
        instead = f"try a lower --lr or --clip 1, from there with --weights {self.checkpoint}"
        return f"{what} at {where}; {self._kept()}; {instead}"

    def _log(self, event: str, **values: Any) -> None:
        with self._writing():
            self.journal.write(event, **values)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Whatever cannot be written ends the run."""
        try:
            yield
        except OSError as error:
            text = f"cannot write to {self.folder}: {error}; {self._kept()}; {self._way_on()}"
            raise RunStopped(text) from error

    def _kept(self) -> str:
        if self._saved_step is None:
            return "nothing has been saved yet"
        how_far = f"update {self._saved_step} of {self.total_steps}"
        return f"{self.checkpoint} is whole and holds the run up to {how_far}"

    def _way_on(self) -> str:
        if self._saved_step is None:
            return "begin again where there is room"
        return f"go on with `qna train --resume {self.folder}`"


def _groups(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Lists of `size` batches; what is left at the end is left out."""
    iterator = iter(batches)
    while len(group := list(itertools.islice(iterator, size))) == size:
        yield group
