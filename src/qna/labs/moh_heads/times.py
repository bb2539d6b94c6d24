"""What leaving heads out saves: inference of one image on one core, all heads beside fewer."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from qna._core.seeds import derive_seed, seeded
from qna.adapters import MoH
from qna.bench.measure.calls import time_calls
from qna.bench.measure.harness import Plan
from qna.labs.moh_heads.choosing import all_alike
from qna.labs.moh_heads.config import MoHHeadsConfig
from qna.labs.moh_heads.training import PLAIN
from qna.labs.row import Figure
from qna.models.registry import create

# of six heads two are shared
COUNTS = {"67 %": (2, 2), "50 %": (2, 1), "33 %": (1, 1)}


def time_at(config: MoHHeadsConfig, size: int) -> list[Figure]:
    """Inference with each part of the heads, where tokens differ in their choice and where they do not."""
    with seeded(derive_seed(config.seed, "time")):
        plain = create("vit_small_patch16_224", img_size=size, depth=config.time_depth, num_classes=10)
        image = torch.randn(1, 3, size, size)
        networks: dict[str, Any] = {PLAIN: plain.eval()}
        for part, counts in COUNTS.items():
            routed = MoH(*counts).apply(copy.deepcopy(plain))
            networks[f"{part}, tokens differ"] = routed
            networks[f"{part}, tokens agree"] = all_alike(copy.deepcopy(routed))
        agree = all_alike(MoH(2, 1).apply(copy.deepcopy(plain)))
    for block in agree.blocks:
        # as anything that looks on does
        block.attn.proj.register_forward_hook(_look)
    networks["50 %, masked"] = agree
    calls = {name: partial(_infer, network, image) for name, network in networks.items()}
    times = time_calls(calls, plan=Plan(seconds=config.seconds, patience=10.0))
    about = {"batch": 1, "size": size, "dim": 384, "depth": config.time_depth}
    return [
        Figure(
            f"time-{size}",
            name,
            "forward",
            "time",
            "ms",
            *(1e3 * value for value in times.spread(name)),
            extra=about,
        )
        for name in networks
    ]


def _look(*call: object) -> None:
    return None


@torch.no_grad()
def _infer(network: nn.Module, image: Tensor) -> object:
    return network(image)
