"""Training vision transformers on whole images, and what they make of damaged ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qna.adapters.tap_adl import TAPADL
from qna.data import load_data
from qna.data.images.labelled import TensorImages
from qna.eval.corruptions import CORRUPTIONS
from qna.labs import classifying
from qna.labs.paired import case_of
from qna.labs.row import Figure
from qna.labs.small_vit import adapted_vit, look_at_attention
from qna.labs.tap_corruption.config import TAPCorruptionConfig

# name -> what is put around the network
NETWORKS: dict[str, TAPADL | None] = {
    "tap and adl": TAPADL(),
    "tap alone": TAPADL(diversity=0.0),
    "adl alone": TAPADL(scales=1),
    "plain": None,
}
BOTH, PLAIN = "tap and adl", "plain"
CASE = "damaged"


def train_all(config: TAPCorruptionConfig, seed: int, rate: float) -> list[Figure]:
    """Train every network alike, and measure it on held-out images, whole and damaged."""
    data = load_data(config.data, config.data_dir)
    train_on, held_out = classifying.drawn(data, config.images, config.held_out, seed)
    about = {"data": config.data, "seed": seed, "lr": rate, "epochs": config.epochs}
    about |= {"trained_on": len(train_on), "held_out": len(held_out), "severity": config.severity}
    damaged = {name: damage(held_out, name, config.severity) for name in CORRUPTIONS}
    figures = []
    for name, adapter in NETWORKS.items():
        network = adapted_vit(config, train_on.pixels.shape[1:], len(data.classes), adapter, seed)
        classifying.train(network, train_on, epochs=config.epochs, batch=config.batch, rate=rate, seed=seed)
        right = {kind: classifying.top1(network, images) for kind, images in damaged.items()}
        measured = {
            ("train", "top1", "%"): classifying.top1(network, held_out),
            ("none", "damaged-top1", "%"): sum(right.values()) / len(right),
            **{("none", f"{kind}-top1", "%"): value for kind, value in right.items()},
            ("none", "cosine", "1"): pairwise_cosine(network, classifying.scaled(held_out.pixels[:100])),
            ("none", "parameters", "1"): sum(p.numel() for p in network.parameters()),
        }
        case = case_of(CASE, seed, rate)
        figures += [Figure(case, name, *what, value, extra=about) for what, value in measured.items()]
    return figures


def damage(images: TensorImages, kind: str, severity: int) -> TensorImages:
    """The images with one of qna's own corruptions."""
    pixels = CORRUPTIONS[kind](images.pixels.float() / 255, severity, range(len(images)))
    return TensorImages(pixels.mul(255).round().to(torch.uint8), images.labels)


def pairwise_cosine(network: Any, images: Tensor) -> float:
    """How alike two queries of a layer attend: the mean cosine over pairs, images and layers."""
    found: list[float] = []

    def note(weights: Tensor) -> None:
        rows = weights.mean(1)
        rows = rows / rows.norm(dim=-1, keepdim=True)
        n = rows.shape[1]
        # of all pairs those of a query with itself are taken out
        found.append(float((rows.sum(1).square().sum(-1) - n).mean() / (n * (n - 1))))

    look_at_attention(network, images, note)
    return sum(found) / len(found)
