"""Training a vision transformer on one data set and adapting it to another."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from qna._core.seeds import derive_seed, seeded
from qna.adapters import TCPA, VPT
from qna.data import load_data
from qna.data.images.labelled import TensorImages
from qna.labs import classifying
from qna.labs.paired import case_of
from qna.labs.row import Figure
from qna.labs.small_vit import small_vit
from qna.labs.tcpa_transfer.config import TCPATransferConfig
from qna.parts.protocols import FollowsEpochs

CASE = "digits"
CHOSEN, ROLES, ALL, PROBE = "tcpa", "tcpa by role", "vpt", "classifier alone"


def contenders(config: TCPATransferConfig) -> dict[str, Callable[[nn.Module], nn.Module]]:
    """Name -> what makes a trained network ready to be adapted, in place."""
    pools: dict[str, Any] = {"pool": (config.pool, config.pool), "top": (config.top, config.top)}
    return {
        CHOSEN: TCPA(**pools, random_epochs=config.target_epochs // 10).apply,
        ROLES: TCPA(form="role", **pools).apply,
        # dropout of prompts as around the others
        ALL: VPT(2 * config.pool, dropout=0.1).apply,
        PROBE: _probed,
    }


def transfer_all(config: TCPATransferConfig, seed: int) -> list[Figure]:
    """Train the network, adapt copies of it in every way at every rate, and count right held-out digits."""
    source = load_data(config.data, config.data_dir)
    train_on, unseen = classifying.drawn(source, config.images, 1000, seed)
    with seeded(derive_seed(seed, "weights")):
        trained = small_vit(config, train_on.pixels.shape[1:], len(source.classes))
    classifying.train(
        trained, train_on, epochs=config.epochs, batch=config.batch, rate=config.source_rate, seed=seed
    )
    about = {"data": config.data, "target": "digits", "seed": seed, "epochs": config.target_epochs}
    about |= {"source_top1": round(classifying.top1(trained, unseen), 2)}
    size = train_on.pixels.shape[-2:]
    digits = classifying.drawn(load_data("digits"), config.target_images, config.held_out, seed)
    adapt_to, held_out = (enlarged(part, size) for part in digits)
    about |= {"trained_on": len(adapt_to), "held_out": len(held_out)}
    figures = []
    for rate in config.rates:
        for name, ready in contenders(config).items():
            with seeded(derive_seed(seed, "prompts")):
                network = copy.deepcopy(trained)
                cast(Any, network).reset_classifier(10)
                network = ready(network)
                adapt(network, adapt_to, config, rate, seed)
            measured = {
                ("train", "top1", "%"): classifying.top1(network, held_out),
                ("none", "trained", "1"): sum(p.numel() for p in network.parameters() if p.requires_grad),
            }
            case, extra = case_of(CASE, seed, rate), {**about, "lr": rate}
            figures += [Figure(case, name, *what, value, extra=extra) for what, value in measured.items()]
    return figures


def adapt(
    network: nn.Module, images: TensorImages, config: TCPATransferConfig, rate: float, seed: int
) -> None:
    """Train what of a network is not frozen, and tell its parts of epochs."""
    epoch = 0

    def begin() -> None:
        nonlocal epoch
        for module in network.modules():
            if isinstance(module, FollowsEpochs):
                module.begin_epoch(epoch, config.target_epochs)
        epoch += 1

    begin()
    classifying.train(
        network,
        images,
        epochs=config.target_epochs,
        batch=config.batch,
        rate=rate,
        seed=seed,
        after_epoch=begin,
    )


def enlarged(images: TensorImages, size: torch.Size) -> TensorImages:
    """The images at another size, bilinear."""
    pixels = F.interpolate(images.pixels.float(), tuple(size), mode="bilinear")
    return TensorImages(pixels.round().to(torch.uint8), images.labels)


def _probed(network: nn.Module) -> nn.Module:
    """All but the classifier frozen."""
    network.requires_grad_(False)
    cast(Any, network).get_classifier().requires_grad_(True)
    return network
