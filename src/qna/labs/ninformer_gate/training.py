"""Training all three alike, and what an image costs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import nn

from qna.data import load_data
from qna.labs import classifying
from qna.labs.ninformer_gate.config import NiNformerGateConfig
from qna.labs.ninformer_gate.networks import ATTENTION, NETWORKS, attention_macs, build
from qna.labs.row import Figure


def train_all(config: NiNformerGateConfig, seed: int, rate: float) -> list[Figure]:
    """Train every network alike, and measure each."""

    def make(name: str, image: torch.Size, classes: int) -> nn.Module:
        return build(name, config, image, classes)

    figures = classifying.compare(config, {name: partial(make, name) for name in NETWORKS}, seed, rate)
    data = load_data(config.data, config.data_dir)
    image = classifying.drawn(data, 1, 1, seed)[0].pixels.shape[1:]
    return [
        replace(figure, p50=figure.p50 + attention_macs(config, image) / 1e6)
        if (figure.provider, figure.metric) == (ATTENTION, "macs")
        else figure
        for figure in figures
    ]
