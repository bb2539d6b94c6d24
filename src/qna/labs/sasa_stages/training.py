"""Training the networks alike, and what part of unseen images each gets right."""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from qna._core.seeds import derive_seed, seeded
from qna.analysis.cost import total_macs
from qna.data import load_data
from qna.data.images.labelled import TensorImages
from qna.labs.row import Figure
from qna.labs.sasa_stages.config import SasaStagesConfig
from qna.labs.sasa_stages.network import StagedResNet

LATE, CONTROL, EARLY = "attention-late", "convolution", "attention-early"


def attending(name: str, stages: int) -> tuple[int, ...]:
    """The stages that attend: early the first, late all but the first."""
    late = tuple(range(1, stages))
    return {LATE: late, CONTROL: (), EARLY: (0,)}[name]


NETWORKS = (LATE, CONTROL, EARLY)


def training_case(seed: int, rate: float) -> str:
    """The case of a seed and a learning rate; `seed_and_rate` reads them back."""
    return f"accuracy-seed{seed}-lr{rate:g}"


def seed_and_rate(case: str) -> tuple[int, float]:
    """What `training_case` was told."""
    seed, rate = case.removeprefix("accuracy-seed").split("-lr", 1)
    return int(seed), float(rate)


def train_all(config: SasaStagesConfig, seed: int, rate: float) -> list[Figure]:
    """Train every network alike, and measure each."""
    data = load_data(config.data, config.data_dir)
    train, held_out = (cast(TensorImages, part) for part in (data.train, data.held_out))
    order = _order(len(train.pixels), seed, "images")[: config.images]
    images, labels = train.pixels[order], train.labels[order]
    unseen, truth = held_out.pixels[: config.held_out], held_out.labels[: config.held_out]
    classes = int(max(labels.max(), truth.max())) + 1
    about = {"data": config.data, "seed": seed, "lr": rate, "epochs": config.epochs}
    about |= {"trained_on": len(images), "held_out": len(unseen)}
    figures = []
    for name in NETWORKS:
        stages = attending(name, len(config.widths))
        with seeded(derive_seed(seed, "weights")):
            network = StagedResNet(images.shape[1], classes, config.widths, stages, config.window)
        _train(network, images, labels, config, seed, rate)
        measured = {
            ("train", "top1", "%"): _top1(network, unseen, truth),
            ("none", "parameters", "1"): sum(p.numel() for p in network.parameters()),
            ("none", "macs", "MMAC"): total_macs(network, (1, *images.shape[1:])) / 1e6,
        }
        case = training_case(seed, rate)
        figures += [Figure(case, name, *what, value, extra=about) for what, value in measured.items()]
    return figures


def _train(  # noqa: PLR0917 - what a run differs in
    network: StagedResNet, images: Tensor, labels: Tensor, config: SasaStagesConfig, seed: int, rate: float
) -> None:
    """Cross entropy by AdamW; the rate rises for a tenth of the steps and falls along a cosine."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.05)
    steps = config.epochs * math.ceil(len(images) / config.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=0.1, cycle_momentum=False
    )
    network.train()
    for epoch in range(config.epochs):
        for batch in _order(len(images), seed, epoch).split(config.batch):
            optimizer.zero_grad()
            F.cross_entropy(network(_scaled(images[batch])), labels[batch]).backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def _top1(network: StagedResNet, images: Tensor, labels: Tensor) -> float:
    network.eval()
    right = [
        (network(_scaled(x)).argmax(1) == y).sum()
        for x, y in zip(images.split(250), labels.split(250), strict=True)
    ]
    return 100 * float(torch.stack(right).sum()) / len(images)


def _scaled(images: Tensor) -> Tensor:
    """Pixels from 0 to 255 as numbers around 0."""
    return images.float() / 127.5 - 1


def _order(count: int, *purpose: int | str) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(derive_seed(*purpose)))
