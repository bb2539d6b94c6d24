"""What is lost when a transformer's matrices go one after the other, beside fewer channels."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean

import torch
from torch import nn

from qna.labs import classifying, paired
from qna.labs.minimal_order.config import MinimalOrderConfig
from qna.labs.minimal_order.networks import NETWORKS, build
from qna.labs.minimal_order.verdict import EXAMPLES, PARAMETERS, RULE, TOP1, verdict
from qna.labs.paired import parts_of
from qna.labs.row import Figure, Lab, LabFolder, Metrics
from qna.mixers import MIXERS
from qna.plots import plot_points


def train_all(config: MinimalOrderConfig, seed: int, rate: float) -> list[Figure]:
    """Train every network alike, and measure each."""

    def make(name: str, image: torch.Size, classes: int) -> nn.Module:
        return build(name, config, image, classes)

    return classifying.compare(config, {name: partial(make, name) for name in NETWORKS}, seed, rate)


def run(config: MinimalOrderConfig, folder: LabFolder) -> Metrics:
    """A part for each seed and learning rate, in which every network is trained."""
    return folder.measured(parts_of(config, train_all))


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw what each gets right against its parameters, to the PNG at `path` and an SVG beside it."""
    best = paired.best_of(metrics, NETWORKS, TOP1)
    counts = paired.figures_of(metrics, PARAMETERS)
    points = [
        {"name": name, "x": counts[name], "y": mean(by_seed.values())}
        for name, by_seed in best.items()
        if name in counts
    ]
    plot_points(
        path,
        [{"title": "held-out images, mean over the seeds", "points": points}],
        title="A transformer with ever fewer matrices, and one with fewer channels",
        note=f"each at its better learning rate; {note}",
        xlabel="parameters",
        ylabel="right, %",
    )


LAB = Lab(
    name="minimal-order",
    about=replace(
        MIXERS["MinimalAttention2d"].about,
        read="the abstract",
        differs="the paper trains on MNIST, CIFAR-10 and, with restrictions, ImageNet; these networks see a "
        "few thousand images a few times, without dropout: how fast they learn, not what they could reach",
    ),
    claim="Transformers without MLPs, with queries and keys as one matrix and without values and output, "
    "classify small images as well as whole ones, with up to 90 % fewer parameters (abstract).",
    control="The whole transformer with so few channels that it has just no fewer parameters than the "
    "minimal one, trained alike. Beside it the whole one, and one of which queries and keys are "
    "collapsed and no more. All have one head, as many blocks and the same tokens.",
    rule=RULE,
    config=MinimalOrderConfig,
    tiny=MinimalOrderConfig(
        data="digits",
        images=32,
        held_out=16,
        dim=16,
        depth=1,
        patch_size=2,
        epochs=1,
        batch=16,
        rates=(3e-3,),
        seeds=2,
    ),
    run=run,
    verdict=verdict,
    examples=EXAMPLES,
    picture=draw,
)
