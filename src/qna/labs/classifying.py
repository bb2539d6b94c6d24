"""Small classifiers trained alike on images in memory: what laboratories that compare accuracy share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core.seeds import derive_seed, seeded
from qna._core.with_losses import WithLosses
from qna.analysis.cost import total_macs
from qna.data import ImageData, load_data
from qna.data.images.labelled import TensorImages
from qna.labs.paired import case_of
from qna.labs.row import Figure

# what cases are named after
ACCURACY = "accuracy"
# (shape of an image, classes) -> a network
Build = Callable[[torch.Size, int], nn.Module]


def compare(config: Any, networks: Mapping[str, Build], seed: int, rate: float) -> list[Figure]:
    """Train every network alike, on the same images in the same order, and measure each.

    Of each network the held-out images that it gets right in per cent, its parameters, and the multiply-adds
    that an image costs.

    Args:
        config: with the fields data, data_dir, images, held_out, epochs and batch.
        networks: what makes each; weights are drawn after the same seed.
        seed: of weights, images and their order.
        rate: the learning rate.
    """
    train_on, held_out = drawn(load_data(config.data, config.data_dir), config.images, config.held_out, seed)
    classes = int(max(train_on.labels.max(), held_out.labels.max())) + 1
    about = {"data": config.data, "seed": seed, "lr": rate, "epochs": config.epochs}
    about |= {"trained_on": len(train_on), "held_out": len(held_out)}
    shape = train_on.pixels.shape[1:]
    figures = []
    for name, build in networks.items():
        with seeded(derive_seed(seed, "weights")):
            network = build(shape, classes)
        train(network, train_on, epochs=config.epochs, batch=config.batch, rate=rate, seed=seed)
        measured = {
            ("train", "top1", "%"): top1(network, held_out),
            ("none", "parameters", "1"): sum(p.numel() for p in network.parameters()),
            ("none", "macs", "MMAC"): total_macs(network, (1, *shape)) / 1e6,
        }
        case = case_of(ACCURACY, seed, rate)
        figures += [Figure(case, name, *what, value, extra=about) for what, value in measured.items()]
    return figures


def drawn(data: ImageData, images: int, held_out: int, seed: int) -> tuple[TensorImages, TensorImages]:
    """So many training images, the first of an order that the seed draws, and the first held-out ones."""
    train, unseen = (cast(TensorImages, part) for part in (data.train, data.held_out))
    chosen = order(len(train), seed, "images")[:images]
    return (
        TensorImages(train.pixels[chosen], train.labels[chosen]),
        TensorImages(unseen.pixels[:held_out], unseen.labels[:held_out]),
    )


def adamw(network: nn.Module, rate: float) -> torch.optim.Optimizer:
    """AdamW, with decay of every weight."""
    return torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.05)


def train(
    network: nn.Module,
    images: TensorImages,
    *,
    epochs: int,
    batch: int,
    rate: float,
    seed: int,
    optimize: Callable[[nn.Module, float], torch.optim.Optimizer] = adamw,
    after_epoch: Callable[[], None] | None = None,
) -> None:
    """Cross entropy and the network's own losses; the rate rises for a tenth of the steps, then falls.

    Args:
        network: is in training mode in every epoch.
        images: to train on.
        epochs: passes over them.
        batch: images of a step.
        rate: the highest; it falls along a cosine.
        seed: of the order of the images.
        optimize: makes the optimiser of a network and a rate.
        after_epoch: called after every epoch.
    """
    steps = epochs * math.ceil(len(images) / batch)
    optimizer = optimize(network, rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=0.1, cycle_momentum=False
    )
    for epoch in range(epochs):
        network.train()
        for chosen in order(len(images), seed, epoch).split(batch):
            optimizer.zero_grad()
            output = network(scaled(images.pixels[chosen]))
            logits, own = output[:2] if isinstance(output, WithLosses) else (output, {})
            loss = F.cross_entropy(logits, images.labels[chosen])
            sum(own.values(), loss).backward()
            optimizer.step()
            schedule.step()
        if after_epoch is not None:
            after_epoch()


def top1(network: nn.Module, images: TensorImages) -> float:
    """How many images in a hundred the network names right."""
    return 100 * float((answers(network, images) == images.labels).double().mean())


@torch.no_grad()
def answers(network: nn.Module, images: TensorImages) -> Tensor:
    """The class that the network names for each image."""
    network.eval()
    return torch.cat([network(scaled(x)).argmax(1) for x in images.pixels.split(100)])


def order(count: int, *purpose: int | str) -> Tensor:
    """A permutation that what it is for decides."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(derive_seed(*purpose)))


def scaled(pixels: Tensor) -> Tensor:
    """Pixels from 0 to 255 as numbers around 0."""
    return pixels.float() / 127.5 - 1
