"""Training vision transformers with and without gates, and what their attention and activations look like."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from qna.adapters.gated import GatedAttention
from qna.data import load_data
from qna.labs import classifying
from qna.labs.gated_sink.config import GatedSinkConfig
from qna.labs.paired import case_of
from qna.labs.row import Figure
from qna.labs.small_vit import adapted_vit, look_at_attention

# name -> what is put around the network
NETWORKS: dict[str, GatedAttention | None] = {
    "gated": GatedAttention(),
    "gated by head": GatedAttention(per="head"),
    "input-independent": GatedAttention(depends=False),
    "plain": None,
}
GATED, PLAIN = "gated", "plain"
CASE = "sink"


def train_all(config: GatedSinkConfig, seed: int, rate: float) -> list[Figure]:
    """Train every network alike and look at what it does to held-out images."""
    data = load_data(config.data, config.data_dir)
    train_on, held_out = classifying.drawn(data, config.images, config.held_out, seed)
    about = {"data": config.data, "seed": seed, "lr": rate, "epochs": config.epochs}
    about |= {"trained_on": len(train_on), "held_out": len(held_out)}
    figures = []
    for name, adapter in NETWORKS.items():
        network = adapted_vit(config, train_on.pixels.shape[1:], len(data.classes), adapter, seed)
        classifying.train(network, train_on, epochs=config.epochs, batch=config.batch, rate=rate, seed=seed)
        first, largest = looked_at(network, classifying.scaled(held_out.pixels[:200]))
        measured = {
            ("train", "top1", "%"): classifying.top1(network, held_out),
            ("none", "first-token", "%"): 100 * first,
            ("none", "largest-activation", "1"): largest,
            ("none", "parameters", "1"): sum(p.numel() for p in network.parameters()),
        }
        case = case_of(CASE, seed, rate)
        figures += [Figure(case, name, *what, value, extra=about) for what, value in measured.items()]
    return figures


def looked_at(network: Any, images: Tensor) -> tuple[float, float]:
    """The part of attention that the first token gets, and the largest activation between blocks.

    The first is the mean over blocks, heads, images and all tokens that ask; even attention would give 1 / N.
    The second is the largest absolute value of what a block hands on.
    """
    received: list[float] = []
    largest = 0.0

    def note_output(block: nn.Module, given: object, output: Tensor) -> None:
        nonlocal largest
        largest = max(largest, float(output.abs().max()))

    hooks = [block.register_forward_hook(note_output) for block in network.blocks]
    look_at_attention(network, images, lambda weights: received.append(float(weights[..., 0].mean())))
    for hook in hooks:
        hook.remove()
    return sum(received) / len(received), largest
