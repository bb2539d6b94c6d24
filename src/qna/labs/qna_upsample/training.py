"""Training the auto-encoders, and what they restore of images that they have not seen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from qna._core.seeds import derive_seed, seeded
from qna.labs.paired import case_of
from qna.labs.qna_upsample.config import QnAUpsampleConfig
from qna.labs.qna_upsample.decoders import UPSAMPLERS, AutoEncoder
from qna.labs.qna_upsample.images import images_of
from qna.labs.row import Figure
from qna.parts.protocols import CountsMacs

# what cases are named after
PSNR = "psnr"


def train_all(config: QnAUpsampleConfig, seed: int, rate: float) -> list[Figure]:
    """Train one auto-encoder per way of up-sampling, alike in all else, and measure each."""
    train, held_out = images_of(config, seed)
    about = {"data": config.data, "seed": seed, "lr": rate, "epochs": config.epochs}
    about |= {"trained_on": len(train), "held_out": len(held_out)}
    figures = []
    for name in UPSAMPLERS:
        with seeded(derive_seed(seed, "weights")):
            network = AutoEncoder(train.shape[1], config.dim, config.code, name)
        _train(network, train, config, seed, rate)
        measured = {
            ("train", "psnr", "dB"): _mean_psnr(network, held_out),
            ("none", "parameters", "1"): sum(p.numel() for p in network.upsample.parameters()),
            ("none", "macs", "MMAC"): _macs(network, held_out.shape[2:]) / 1e6,
        }
        case = case_of(PSNR, seed, rate)
        figures += [Figure(case, name, *what, value, extra=about) for what, value in measured.items()]
    return figures


def psnr(restored: Tensor, images: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each image (B, C, H, W), for values from 0 to 1."""
    return -10 * (restored - images).square().mean((1, 2, 3)).log10()


def _train(network: AutoEncoder, images: Tensor, config: QnAUpsampleConfig, seed: int, rate: float) -> None:
    """Mean squared error by AdamW; the rate rises for a tenth of the steps and falls along a cosine."""
    steps_of_epoch = math.ceil(len(images) / config.batch)
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=config.epochs * steps_of_epoch, pct_start=0.1, cycle_momentum=False
    )
    for epoch in range(config.epochs):
        for batch in _order(len(images), seed, epoch).split(config.batch):
            target = images[batch].float() / 255
            optimizer.zero_grad()
            F.mse_loss(network(target), target).backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def _mean_psnr(network: AutoEncoder, images: Tensor) -> float:
    each = [psnr(network(x).clamp(0, 1), x) for x in (images.float() / 255).split(100)]
    return float(torch.cat(each).mean())


def _macs(network: AutoEncoder, size: Sequence[int]) -> int:
    """Multiply-adds of the layers that up-sample, for one image of this height and width."""
    layers = cast("Iterable[CountsMacs]", network.upsample)
    return sum(
        layer.macs((1, *(n // 2**halvings for n in size), network.dim))
        for layer, halvings in zip(layers, (2, 1), strict=True)
    )


def _order(count: int, *purpose: int | str) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(derive_seed(*purpose)))
