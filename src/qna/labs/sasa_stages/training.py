"""Training the networks alike, and what part of unseen images each gets right."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from qna.labs import classifying
from qna.labs.row import Figure
from qna.labs.sasa_stages.config import SasaStagesConfig
from qna.labs.sasa_stages.network import StagedResNet

NETWORKS = LATE, CONTROL, EARLY = "attention-late", "convolution", "attention-early"


def attending(name: str, stages: int) -> tuple[int, ...]:
    """The stages that attend: early the first, late all but the first."""
    late = tuple(range(1, stages))
    return {LATE: late, CONTROL: (), EARLY: (0,)}[name]


def train_all(config: SasaStagesConfig, seed: int, rate: float) -> list[Figure]:
    """Train every network alike, and measure each."""

    def network(name: str, image: torch.Size, classes: int) -> nn.Module:
        stages = attending(name, len(config.widths))
        return StagedResNet(image[0], classes, config.widths, stages, config.window)

    return classifying.compare(config, {name: partial(network, name) for name in NETWORKS}, seed, rate)
