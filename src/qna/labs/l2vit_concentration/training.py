"""Training the networks, and where what attention of the whole map adds to a position comes from."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from qna.data import load_data
from qna.labs import classifying
from qna.labs.l2vit_concentration.config import L2ViTConcentrationConfig
from qna.labs.l2vit_concentration.networks import NETWORKS, build
from qna.labs.paired import case_of
from qna.labs.row import Figure
from qna.models._parts.hierarchy import Hierarchy

# positions per axis on either side of one that are near it
RADIUS = 3
# positions of the map that are looked at, as parts of its height and width
_PLACES = (0.25, 0.5, 0.75)


def train_all(config: L2ViTConcentrationConfig, seed: int, rate: float) -> list[Figure]:
    """Train every contender alike, on the same images in the same order, and look where each looks."""
    networks: dict[str, Hierarchy] = {}

    def network(name: str, image: torch.Size, classes: int) -> nn.Module:
        networks[name] = build(
            name, channels=image[0], classes=classes, dim=config.dim, patch_size=config.patch_size
        )
        return networks[name]

    figures = classifying.compare(config, {name: partial(network, name) for name in NETWORKS}, seed, rate)
    data = load_data(config.data, config.data_dir)
    _, held_out = classifying.drawn(data, config.images, config.held_out, seed)
    x = classifying.scaled(held_out.pixels[: config.probed])
    for name, trained in networks.items():
        stage: Any = trained.stages[0]
        first, last = stage
        with torch.no_grad():
            seen = last.position(first(trained.stem(x)))
        case = case_of(classifying.ACCURACY, seed, rate)
        about = {"seed": seed, "lr": rate, "probed": len(x), "radius": RADIUS}
        near, chance = near_mass(last, seen)
        for what, value in {"near": near, "near-by-chance": chance, "entropy": entropy(last, seen)}.items():
            figures.append(Figure(case, name, "none", what, "%", value, extra=about))
    return figures


def near_mass(block: Any, x: Tensor) -> tuple[float, float]:
    """How much of what others give a position comes from near it, and would if all gave alike; per cent.

    Of the block's mixer and what stands behind it, without its MLP: the absolute gradient of a position's
    channels, by the channels of every other position.

    Args:
        block: an `L2ViTBlock` in evaluation mode.
        x: maps (B, H, W, C), after its first convolution.
    """
    x = x.detach().requires_grad_()
    height, width = x.shape[1:3]
    y = block.near(x + block.mixer(block.norm1(x)))
    down, across = torch.arange(height)[:, None], torch.arange(width)
    shares, chances = [], []
    for row in {int(height * place) for place in _PLACES}:
        for column in {int(width * place) for place in _PLACES}:
            (gradient,) = torch.autograd.grad(y[:, row, column].sum(), x, retain_graph=True)
            given = gradient.abs().sum(-1)
            given[:, row, column] = 0
            near = ((down - row).abs() <= RADIUS) & ((across - column).abs() <= RADIUS)
            shares.append((given * near).sum((1, 2)) / given.sum((1, 2)).clamp(min=1e-30))
            chances.append((int(near.sum()) - 1) / max(1, height * width - 1))
    return 100 * torch.stack(shares).mean().item(), 100 * sum(chances) / len(chances)


@torch.no_grad()
def entropy(block: Any, x: Tensor) -> float:
    """Mean entropy of the attention's own shares, in per cent of that of even ones."""
    shares = block.mixer.attention_map(block.norm1(x)).flatten(-2)
    return 100 * torch.special.entr(shares).sum(-1).mean().item() / math.log(shares.shape[-1])
