"""Training the whole network, and what is left of it when tokens are dropped."""

from __future__ import annotations

import copy
from functools import partial

import torch
from torch import nn

from qna._core.seeds import derive_seed, seeded
from qna.adapters.evit import EViT
from qna.bench.measure.calls import time_calls
from qna.bench.measure.harness import Plan
from qna.data import load_data
from qna.labs import classifying
from qna.labs.evit_keep.choosing import CHOOSERS, reduced
from qna.labs.evit_keep.config import EViTKeepConfig
from qna.labs.paired import case_of
from qna.labs.row import Figure
from qna.labs.small_vit import small_vit

DENSE, SHORT = "all tokens", "evit"
# case of the times
TIME = "time"


def layers(config: EViTKeepConfig) -> tuple[int, ...]:
    """The blocks that drop tokens."""
    return tuple(config.depth * i // 4 for i in (1, 2, 3))


def evaluate_all(config: EViTKeepConfig, seed: int, rate: float) -> list[Figure]:
    """Train every chooser's network and the whole one alike, and count what is right with every keep rate."""
    data = load_data(config.data, config.data_dir)
    train_on, held_out = classifying.drawn(data, config.images, config.held_out, seed)
    about = {"data": config.data, "seed": seed, "lr": rate, "epochs": config.epochs}
    about |= {"trained_on": len(train_on), "held_out": len(held_out)}

    def fresh() -> nn.Module:
        with seeded(derive_seed(seed, "weights")):
            return small_vit(config, train_on.pixels.shape[1:], len(data.classes))

    def fewer(network: nn.Module, chooser: str, keep: float) -> nn.Module:
        adapter = EViT(keep, layers=layers(config))
        return reduced(network, chooser, adapter, derive_seed(seed, "tokens", f"{keep:g}"))

    def trained(network: nn.Module) -> nn.Module:
        classifying.train(network, train_on, epochs=config.epochs, batch=config.batch, rate=rate, seed=seed)
        return network

    whole = trained(fresh())
    weights = {chooser: whole.state_dict() for chooser in CHOOSERS}
    if config.train_keep < 1:
        # an adapter adds no weight, so the bare network takes them at any rate
        for chooser in CHOOSERS:
            weights[chooser] = trained(fewer(fresh(), chooser, config.train_keep)).state_dict()
    right = {DENSE: classifying.top1(whole, held_out)}
    figures = []
    for keep in config.keep:
        for chooser in CHOOSERS:
            network = fresh()
            network.load_state_dict(weights[chooser])
            right[chooser] = classifying.top1(fewer(network, chooser, keep), held_out)
        case = case_of(f"keep{keep:g}", seed, rate)
        figures += [
            Figure(case, name, "train", "top1", "%", value, extra={**about, "keep": keep})
            for name, value in right.items()
        ]
    return figures


def time_all(config: EViTKeepConfig) -> list[Figure]:
    """Inference of larger images, whole and with every part of the tokens, in turns."""
    with seeded(derive_seed(config.seed, "time")):
        network = small_vit(config, (1, config.time_size, config.time_size), 10).eval()
        images = torch.randn(8, 1, config.time_size, config.time_size)
    networks = {DENSE: network}
    for keep in config.keep:
        networks[f"{SHORT} {keep:g}"] = EViT(keep, layers=layers(config)).apply(copy.deepcopy(network))
    calls = {name: partial(_infer, each, images) for name, each in networks.items()}
    times = time_calls(calls, plan=Plan(seconds=config.seconds, patience=10.0))
    about = {"batch": len(images), "size": config.time_size, "dim": config.dim, "depth": config.depth}
    figures = []
    for name in networks:
        taken = (1e3 * value for value in times.spread(name))
        figures.append(Figure(TIME, name, "forward", "time", "ms", *taken, extra=about))
    macs = total_macs_of(config)
    figures += [
        Figure(TIME, name, "none", "macs", "MMAC", value / 1e6, extra=about) for name, value in macs.items()
    ]
    return figures


def total_macs_of(config: EViTKeepConfig) -> dict[str, float]:
    """Multiply-adds of an image: of a block, attention reads what reaches it and the MLP what stays."""
    tokens, dim = (config.time_size // config.patch_size) ** 2, config.dim
    ends = tokens * config.patch_size**2 * dim + 10 * dim
    found = {}
    for name, adapter in {
        DENSE: None,
        **{f"{SHORT} {k:g}": EViT(k, layers=layers(config)) for k in config.keep},
    }.items():
        after = [tokens] * config.depth if adapter is None else adapter.token_counts(tokens, config.depth)
        macs = ends
        for n, kept in zip([tokens, *after], after, strict=False):
            macs += 4 * (n + 1) * dim**2 + 2 * (n + 1) ** 2 * dim + 4 * (kept + 1) * dim**2
        found[name] = float(macs)
    return found


@torch.no_grad()
def _infer(network: nn.Module, images: torch.Tensor) -> object:
    return network(images)
