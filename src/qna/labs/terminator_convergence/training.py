"""Training the networks alike, asked after every epoch, and what stored hyper-kernels change after it."""

from __future__ import annotations

from functools import partial
from statistics import mean

import torch
import torch.nn.functional as F

from qna.analysis.cost import total_macs
from qna.data import load_data
from qna.data.images.labelled import TensorImages
from qna.labs import classifying
from qna.labs.paired import case_of
from qna.labs.row import Figure
from qna.labs.terminator_convergence.config import TerminatorConvergenceConfig
from qna.labs.terminator_convergence.networks import (
    NETWORKS,
    OPTIMIZERS,
    build,
    contender,
    optimize,
)
from qna.models import Terminator

# what cases are named after
CURVES = "curves"


def train_all(config: TerminatorConvergenceConfig, seed: int, rate: float) -> list[Figure]:
    """Train every network by every optimiser, on the same images in the same order."""
    data = load_data(config.data, config.data_dir)
    train_on, held_out = (
        shrunk(part, config.shrink) for part in classifying.drawn(data, config.images, config.held_out, seed)
    )
    about = {"data": config.data, "seed": seed, "lr": rate, "epochs": config.epochs}
    about |= {"trained_on": len(train_on), "held_out": len(held_out)}
    shape = train_on.pixels.shape[1:]
    figures = []
    for name in NETWORKS:
        for optimizer in OPTIMIZERS:
            network = build(name, config, channels=shape[0], size=shape[1], seed=seed)
            curve: list[float] = []

            def ask(network: torch.nn.Module = network, curve: list[float] = curve) -> None:
                curve.append(classifying.top1(network, held_out))

            classifying.train(
                network,
                train_on,
                epochs=config.epochs,
                batch=config.batch,
                rate=rate,
                seed=seed,
                optimize=partial(optimize, optimizer),
                after_epoch=ask,
            )
            measured = {
                ("train", "first-epoch", "%"): curve[0],
                ("train", "mean-of-epochs", "%"): mean(curve),
                ("train", "top1", "%"): curve[-1],
                ("none", "parameters", "1"): sum(p.numel() for p in network.parameters()),
                ("none", "macs", "MMAC"): total_macs(network, (1, *shape)) / 1e6,
            }
            if isinstance(network, Terminator):
                measured["none", "stored-change", "1"] = stored_change(network, held_out)
            case, who = case_of(CURVES, seed, rate), contender(name, optimizer)
            figures += [Figure(case, who, *what, value, extra=about) for what, value in measured.items()]
    return figures


def shrunk(images: TensorImages, factor: int) -> TensorImages:
    """Averaged over squares of so many pixels per axis."""
    averaged = F.avg_pool2d(images.pixels.float(), factor)
    return TensorImages(averaged.round().to(torch.uint8), images.labels)


@torch.no_grad()
def stored_change(network: Terminator, images: TensorImages) -> float:
    """By how much logits change, at most, when hyper-kernels are stored; 0 says bit for bit alike."""
    x = classifying.scaled(images.pixels[:100])
    before = network.eval()(x)
    return float((network.fuse()(x) - before).abs().max())
