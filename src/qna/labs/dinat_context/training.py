"""Training the networks, and what part of the images that they have not seen each gets right."""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core.seeds import derive_seed, seeded
from qna.analysis.cost import total_macs
from qna.data import load_data
from qna.data.images.labelled import TensorImages
from qna.labs.dinat_context.config import DiNATContextConfig
from qna.labs.dinat_context.networks import CONTENDERS, build
from qna.labs.row import Figure


def training_case(seed: int, rate: float) -> str:
    """The case of a seed and a learning rate; `seed_and_rate` reads them back."""
    return f"accuracy-seed{seed}-lr{rate:g}"


def seed_and_rate(case: str) -> tuple[int, float]:
    """What `training_case` was told."""
    seed, rate = case.removeprefix("accuracy-seed").split("-lr", 1)
    return int(seed), float(rate)


def train_all(config: DiNATContextConfig, seed: int, rate: float) -> list[Figure]:
    """Train every contender alike, on the same images in the same order, and measure each."""
    data = load_data(config.data, config.data_dir)
    train, held_out = (cast(TensorImages, part) for part in (data.train, data.held_out))
    chosen = _order(len(train), seed, "images")[: config.images]
    train = TensorImages(train.pixels[chosen], train.labels[chosen])
    about = {"data": config.data, "seed": seed, "lr": rate, "epochs": config.epochs}
    about |= {"trained_on": len(train), "held_out": min(config.held_out, len(held_out))}
    channels, size = train.pixels.shape[1:3]
    figures = []
    for name in CONTENDERS:
        with seeded(derive_seed(seed, "weights")):
            network = build(
                name,
                channels=channels,
                size=size,
                dim=config.dim,
                blocks=config.blocks,
                patch_size=config.patch_size,
            )
        _train(network, train, config, seed, rate)
        measured = {
            ("train", "top1", "%"): 100 * _accuracy(network, held_out, config.held_out),
            ("none", "parameters", "1"): sum(p.numel() for p in network.parameters()),
            ("none", "macs", "MMAC"): total_macs(network, (1, channels, size, size)) / 1e6,
        }
        case = training_case(seed, rate)
        figures += [Figure(case, name, *what, value, extra=about) for what, value in measured.items()]
    return figures


def _train(
    network: nn.Module, images: TensorImages, config: DiNATContextConfig, seed: int, rate: float
) -> None:
    """Cross-entropy by AdamW; the rate rises for a tenth of the steps and falls along a cosine."""
    steps = config.epochs * math.ceil(len(images) / config.batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=0.1, cycle_momentum=False
    )
    network.train()
    for epoch in range(config.epochs):
        for batch in _order(len(images), seed, epoch).split(config.batch):
            optimizer.zero_grad()
            F.cross_entropy(network(_scaled(images.pixels[batch])), images.labels[batch]).backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def _accuracy(network: nn.Module, data: TensorImages, count: int) -> float:
    network.eval()
    answers = [network(_scaled(x)).argmax(1) for x in data.pixels[:count].split(100)]
    return float((torch.cat(answers) == data.labels[:count]).double().mean())


def _scaled(pixels: Tensor) -> Tensor:
    return pixels.float() / 127.5 - 1


def _order(count: int, *purpose: int | str) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(derive_seed(*purpose)))
