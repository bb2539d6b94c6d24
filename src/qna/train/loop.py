"""The training loop: every update is a function of the configuration, the weights and the update's number."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from qna._core.errors import InvalidInput, require
from qna._core.files import write_text
from qna._core.seeds import derive_seed, seeded
from qna.data import (
    Batch,
    ImageData,
    Jitter,
    Preparation,
    TrainingOrder,
    evaluation_batches,
    load_data,
    training_batches,
)
from qna.eval import Scores, evaluate
from qna.train.checkpoint import CHECKPOINT, WEIGHTS, Progress, save_checkpoint, save_weights
from qna.train.config import TrainConfig
from qna.train.folder import LOG, Journal, claim_folder
from qna.train.network import build_network
from qna.train.optimizer import build_optimizer, learning_rate


class Observer:
    """Told what happens in a run; this one does nothing."""

    def begin(self, run: Training) -> None:
        """The run has been set up."""

    def update(self, step: int, epoch: int, loss: float) -> None:
        """An update was made."""

    def epoch(self, record: dict[str, Any]) -> None:
        """An epoch is complete and evaluated."""


@dataclass(frozen=True)
class Outcome:
    """What a run left.

    Attributes:
        folder: where everything is.
        network: as evaluated: the running average if there is one.
        data: the images.
        scores: on the held-out images.
        history: one record per epoch.
        metrics: what metrics.json holds.
    """

    folder: Path
    network: nn.Module
    data: ImageData
    scores: Scores
    history: list[dict[str, Any]]
    metrics: dict[str, Any]


def fit(config: TrainConfig, observer: Observer | None = None) -> Outcome:
    """Train as `config` says and write checkpoint, weights, configuration, log and metrics to a new folder.

    Raises:
        InvalidInput: if the configuration names something that does not exist or does not fit.
    """
    with seeded(derive_seed(config.run.seed, "run")), _threads(config.run.threads):
        run = Training(config)
        return run.start(observer or Observer())


class Training:
    """A run: data, network, optimizer and how far it is.

    Args:
        config: what to do.

    Attributes:
        total_steps: updates that the whole run makes.
    """

    def __init__(self, config: TrainConfig):
        self.config = config
        self.accelerator = _accelerator(config)
        self.device = self.accelerator.device
        self.data = load_data(config.images.data, config.images.data_dir)
        size, mean, std = config.images.image_size, self.data.mean, self.data.std
        a, o = config.augment, config.optim
        self.training_view = Preparation(size, mean, std, Jitter(a.rotate, a.shift, a.zoom, a.flip))
        self.plain_view = Preparation(size, mean, std)
        self.order = TrainingOrder(
            len(self.data.train),
            o.batch_size,
            config.run.seed,
            self.accelerator.process_index,
            self.accelerator.num_processes,
        )
        self.network = build_network(
            config.network, classes=len(self.data.classes), channels=self.data.channels, image_size=size
        ).to(self.device)
        self.average = _average(self.network, o.ema)
        self.optimizer = build_optimizer(self.network, o)
        self.model, self.stepper = self.accelerator.prepare(self.network, self.optimizer)
        self.steps_per_epoch = len(self.order)
        self.total_steps = self.steps_per_epoch * o.epochs
        self.peak = o.lr * o.batch_size * self.order.world / 256
        self.progress = Progress()

    @property
    def evaluated(self) -> nn.Module:
        """The network that is evaluated and kept."""
        return self.network if self.average is None else self.average.module

    @property
    def parameters(self) -> int:
        """Trainable numbers of the network."""
        return sum(p.numel() for p in self.network.parameters())

    def start(self, observer: Observer) -> Outcome:
        """Claim the folder, train all epochs, and write what came of it."""
        model = self.config.network.model.replace("/", "-").replace(":", "-")
        wanted = self.config.run.out or Path("runs") / f"{self.config.images.data}-{model}"
        self.folder = claim_folder(wanted)
        write_text(self.folder / "config.json", self.config.to_json())
        self.journal = Journal(self.folder / LOG)
        self.observer = observer
        observer.begin(self)
        scores = None
        try:
            for _ in range(self.progress.epoch, self.config.optim.epochs):
                scores = self._epoch()
        finally:
            self.journal.close()
        assert scores is not None
        return self._finish(scores)

    def _epoch(self) -> Scores:
        progress, begun = self.progress, time.perf_counter()
        batches = training_batches(
            self.data.train,
            self.training_view,
            self.order,
            epoch=progress.epoch,
            start=progress.step_in_epoch,
            workers=self.config.images.workers,
        )
        self.model.train()
        for batch in batches:
            self._update(batch)
        scores = self.evaluate()
        progress.seconds += time.perf_counter() - begun
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
        self._save()
        self.journal.write("epoch", **record)
        self.observer.epoch(record)
        return scores

    def _update(self, batch: Batch) -> None:
        progress = self.progress
        # dropout and stochastic depth draw from here
        torch.manual_seed(derive_seed(self.config.run.seed, "update", progress.step, self.order.rank))
        rate = self._rate(progress.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        logits = self.model(batch.images.to(self.device))
        loss = F.cross_entropy(
            logits.float(), batch.labels.to(self.device), label_smoothing=self.config.augment.smoothing
        )
        self.accelerator.backward(loss)
        self.stepper.step()
        self.stepper.zero_grad(set_to_none=True)
        progress.step += 1
        if self.average is not None:
            self.average.update(self.network, step=progress.step)
        value = float(loss.detach())
        progress.step_in_epoch += 1
        progress.loss_sum += value * len(batch.labels)
        progress.images += len(batch.labels)
        self.journal.write("update", step=progress.step, epoch=progress.epoch, lr=rate, loss=value)
        self.observer.update(progress.step, progress.epoch, value)

    def _rate(self, step: int) -> float:
        warmup = round(self.config.optim.warmup_epochs * self.steps_per_epoch)
        return learning_rate(step, peak=self.peak, warmup=warmup, total=self.total_steps)

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
            self.evaluated,
            batches,
            len(self.data.classes),
            device=self.device,
            reduce=self.accelerator.reduce if self.order.world > 1 else None,
            autocast=self.accelerator.autocast,
        )

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            save_checkpoint(
                self.folder / CHECKPOINT,
                network=self.network,
                average=None if self.average is None else self.average.module,
                optimizer=self.optimizer,
                scaler=None if scaler is None else scaler.state_dict(),
                progress=self.progress,
            )

    def _finish(self, scores: Scores) -> Outcome:
        config = self.config
        metrics = {
            "model": config.network.model,
            "parameters": self.parameters,
            "data": self.data.name,
            "trained_on": len(self.data.train),
            "held_out": scores.images,
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
        save_weights(self.folder / WEIGHTS, self.evaluated, {"config": json.loads(config.to_json())})
        write_text(self.folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        return Outcome(self.folder, self.evaluated, self.data, scores, self.progress.history, metrics)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _accelerator(config: TrainConfig) -> Any:
    accelerate = require("accelerate", extra="train", purpose="training")
    precision = {"fp32": "no"}.get(config.run.precision, config.run.precision)
    # accelerate keeps the first precision of a process for all later runs unless told to forget it
    accelerate.state.AcceleratorState._reset_state()
    try:
        return accelerate.Accelerator(cpu=config.run.device == "cpu", mixed_precision=precision)
    except ValueError as error:
        raise InvalidInput(f"precision {config.run.precision} cannot be used here: {error}") from None


def _average(network: nn.Module, decay: float) -> Any:
    if not decay:
        return None
    timm_utils = require("timm.utils", extra="train", purpose="training")
    # the warm-up lets the average follow the first, fast steps: decay 1 - (1 + step)^(-2/3), at most `decay`
    return timm_utils.ModelEmaV3(network, decay=decay, use_warmup=True)
