"""Training a dense network, predictors beside it, and networks whose queries see some keys."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from qna._core.seeds import derive_seed
from qna.adapters.sparsifiner import Sparsifiner
from qna.data import load_data
from qna.labs import classifying
from qna.labs.paired import case_of
from qna.labs.row import Figure
from qna.labs.small_vit import adapted_vit
from qna.labs.sparsifiner_recall.choosing import CHOOSERS, PREDICTED, choosing, recall
from qna.labs.sparsifiner_recall.config import SparsifinerRecallConfig

# trained on for as long, all keys seen
DENSE = "all keys"


def train_all(config: SparsifinerRecallConfig, seed: int, rate: float) -> list[Figure]:
    """Train a network, fit predictors to it, train it on with every chooser's masks, and judge them all."""
    data = load_data(config.data, config.data_dir)
    train_on, held_out = classifying.drawn(data, config.images, config.held_out, seed)
    shape = train_on.pixels.shape[1:]

    def made(weights: Any = None, **arguments: Any) -> nn.Module:
        network = adapted_vit(config, shape, len(data.classes), Sparsifiner(**arguments), seed)
        if weights is not None:
            network.load_state_dict(weights)
        return network

    def trained(network: nn.Module, epochs: int, rate: float) -> dict[str, torch.Tensor]:
        classifying.train(network, train_on, epochs=epochs, batch=config.batch, rate=rate, seed=seed)
        return network.state_dict()

    dense = made(keep_rate=1.0, reconstruction_epochs=0, logits=0.0, tokens=0.0)
    weights = trained(dense, config.epochs, rate)
    fitted = trained(made(weights), config.fit_epochs, rate)

    tokens = dense.num_prefix_tokens + dense.patch_embed.num_patches  # type: ignore[union-attr, operator]
    counts = {keep: Sparsifiner(keep).kept(int(tokens)) for keep in config.keep}
    looked_at = classifying.scaled(held_out.pixels[:200])
    whole: dict[float, dict[str, float]] = {keep: {} for keep in config.keep}
    right: dict[float, dict[str, float]] = {keep: {} for keep in config.keep}
    tuned_rate = config.tune_rate * rate
    on = made(fitted, keep_rate=1.0, reconstruction_epochs=0)
    trained(on, config.tune_epochs, tuned_rate)
    for keep in config.keep:
        right[keep][DENSE] = classifying.top1(on, held_out)
    for chooser in CHOOSERS:
        draws = derive_seed(seed, "masks", chooser) % 2**40
        found = recall(choosing(made(fitted, keep_rate=1.0), chooser, draws), looked_at, counts)
        network = made(fitted, keep_rate=config.tune_keep, reconstruction_epochs=0)
        tuned = trained(choosing(network, chooser, draws), config.tune_epochs, tuned_rate)
        for keep in config.keep:
            whole[keep][chooser] = found[keep]
            judged = choosing(made(tuned, keep_rate=keep), chooser, draws)
            right[keep][chooser] = classifying.top1(judged, held_out)
    about = {"data": config.data, "seed": seed, "lr": rate, "epochs": config.epochs}
    about |= {"trained_on": len(train_on), "held_out": len(held_out), "tokens": int(tokens)}
    figures = []
    for keep in config.keep:
        case, extra = case_of(f"keep{keep:g}", seed, rate), {**about, "keep": keep, "keys": counts[keep]}
        figures += [
            Figure(case, name, "train", "top1", "%", value, extra=extra)
            for name, value in right[keep].items()
        ]
        figures += [
            Figure(case, name, "none", "recall", "%", value, extra=extra)
            for name, value in whole[keep].items()
        ]
    return figures


__all__ = ["CHOOSERS", "DENSE", "PREDICTED", "train_all"]
