"""Training the networks, and what part of the images that they have not seen each gets right."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from qna.labs import classifying
from qna.labs.dinat_context.config import DiNATContextConfig
from qna.labs.dinat_context.networks import CONTENDERS, build
from qna.labs.row import Figure


def train_all(config: DiNATContextConfig, seed: int, rate: float) -> list[Figure]:
    """Train every contender alike, on the same images in the same order, and measure each."""

    def network(name: str, image: torch.Size, classes: int) -> nn.Module:
        return build(
            name,
            channels=image[0],
            size=image[1],
            dim=config.dim,
            blocks=config.blocks,
            patch_size=config.patch_size,
        )

    return classifying.compare(config, {name: partial(network, name) for name in CONTENDERS}, seed, rate)
