"""Training vision transformers whose tokens choose heads, and what becomes of the choice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from qna._core.seeds import derive_seed, seeded
from qna.adapters.moh import head_use
from qna.data import load_data
from qna.labs import classifying
from qna.labs.moh_heads.choosing import FIXED, KINDS, with_heads
from qna.labs.moh_heads.config import MoHHeadsConfig
from qna.labs.paired import case_of
from qna.labs.row import Figure
from qna.labs.small_vit import small_vit

PLAIN = "all heads"


def name_of(kind: str, part: float) -> str:
    """Of a network of a kind in which a part of the heads speaks."""
    return f"{kind} {part:g}"


def train_all(config: MoHHeadsConfig, seed: int, rate: float) -> list[Figure]:
    """Train every network alike; count what is right, and which heads are used on held-out images."""
    data = load_data(config.data, config.data_dir)
    train_on, held_out = classifying.drawn(data, config.images, config.held_out, seed)
    about = {"data": config.data, "seed": seed, "lr": rate, "epochs": config.epochs}
    about |= {"trained_on": len(train_on), "held_out": len(held_out)}
    heads = config.dim // 16

    def fresh() -> nn.Module:
        with seeded(derive_seed(seed, "weights")):
            return small_vit(config, train_on.pixels.shape[1:], len(data.classes))

    def chosen(kind: str, part: float) -> nn.Module:
        network = fresh()
        with seeded(derive_seed(seed, "routers")):
            return with_heads(network, kind, shared=heads // 4, speaking=round(part * heads))

    networks = {PLAIN: fresh()}
    networks |= {name_of(kind, part): chosen(kind, part) for part in config.speaking for kind in KINDS}
    figures = []
    for name, network in networks.items():
        classifying.train(network, train_on, epochs=config.epochs, batch=config.batch, rate=rate, seed=seed)
        measured = {
            ("train", "top1", "%"): classifying.top1(network, held_out),
            ("none", "parameters", "1"): sum(p.numel() for p in network.parameters()),
        }
        if name != PLAIN and not name.startswith(FIXED):
            busiest, computed = used(network, classifying.scaled(held_out.pixels[:100]), heads // 4)
            measured |= {("none", "busiest", "x even"): busiest, ("none", "computed", "%"): computed}
        case = case_of("heads", seed, rate)
        figures += [Figure(case, name, *what, value, extra=about) for what, value in measured.items()]
    return figures


@torch.no_grad()
def used(network: Any, images: Tensor, shared: int) -> tuple[float, float]:
    """How unevenly heads are chosen, and how many must be computed for one image.

    Returns:
        what the most chosen routed head of a layer speaks for, over what even use would give it, mean over
        layers; and the percentage of heads that some token of an image chose, mean over images and layers.
    """
    network.eval()
    share = torch.stack([*head_use(network, images).values()])[:, shared:]
    busiest = (share.amax(1) / share.mean(1)).mean()
    by_image = torch.stack([torch.stack([*head_use(network, x[None]).values()]) for x in images])
    return float(busiest), 100 * float((by_image > 0).float().mean())
