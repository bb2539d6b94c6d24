"""Two networks of equal cost, one with blocks of QnA and one with blocks of self-attention in windows.

Both are QnA-ViTs of three stages, as `qna bench accuracy` trains them: within 1 % of each other in parameters
and 7 % in multiply-adds, QnA the smaller in both. Their strided layers between the stages are the same.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from qna.bench.subjects.accuracy import macs
from qna.labs.qna_cost.config import QnACostConfig
from qna.labs.row import Figure
from qna.train import TrainConfig, fit, recipe

NETWORKS = {
    "qna": ("dim=24", "window_head_dim=12", "qna_blocks=1,1,0"),
    "window-attention": ("dim=24", "window_head_dim=12", "qna_blocks=0,0,0", "window_blocks=1,1,1"),
}
_RECIPES = {"digits": "digits", "fashion-mnist": "fashion-mnist-laptop", "cifar10": "cifar10-laptop"}


def training_case(seed: int, rate: float) -> str:
    """The case of a seed and a learning rate; `rate_of` reads the rate back."""
    return f"accuracy-seed{seed}-lr{rate:g}"


def rate_of(case: str) -> float | None:
    """The rate of a case of training; None for other cases."""
    return float(case.split("-lr", 1)[1]) if case.startswith("accuracy-seed") else None


def train_both(config: QnACostConfig, folder: Path, seed: int, rate: float) -> list[Figure]:
    """Train both networks alike, and tell what part of the held-out images each gets right."""
    return [
        figure for name in NETWORKS for figure in _train(config, name, folder / "training", seed, rate)
    ]  # fmt: skip


def _train(config: QnACostConfig, name: str, folder: Path, seed: int, rate: float) -> list[Figure]:
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped here
    outcome = fit(train_config(config, name, folder, seed, rate))
    shutil.rmtree(folder)  # its figures are all that is kept
    size, metrics = outcome.config.images.image_size, outcome.metrics
    counted = macs(outcome.network, (1, outcome.data.channels, size, size))
    extra = {"data": config.data, "seed": seed, "lr": rate, "epochs": config.epochs}
    extra |= {count: metrics[count] for count in ("trained_on", "held_out", "right")}
    case = training_case(seed, rate)
    return [
        Figure(case, name, "train", "top1", "%", 100 * metrics["top1"], extra=extra),
        Figure(case, name, "none", "parameters", "1", metrics["parameters"], extra=extra),
        Figure(case, name, "none", "macs", "MMAC", counted / 1e6, extra=extra),
    ]


def train_config(config: QnACostConfig, name: str, folder: Path, seed: int, rate: float) -> TrainConfig:
    """The data's recipe for a small network on one core, with what this laboratory varies."""
    base = recipe(_RECIPES[config.data])
    return replace(
        base,
        images=replace(base.images, data_dir=config.data_dir),
        network=replace(base.network, model="qna_vit_nano_16", model_kwargs=NETWORKS[name], drop_path=0.0),
        optim=replace(base.optim, epochs=config.epochs, lr=rate, warmup_epochs=config.epochs / 10),
        run=replace(base.run, out=folder, seed=seed, device="cpu", threads=1, tensorboard=False),
    )
