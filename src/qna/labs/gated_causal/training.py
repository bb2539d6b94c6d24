"""Training decoders of text with and without gates, and what their attention and activations look like."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from qna.labs.gated_causal.config import GatedCausalConfig
from qna.labs.paired import case_of
from qna.labs.row import Figure
from qna.labs.small_decoder import bits_per_byte, small_decoder, stdlib_text, train

GATED, BY_HEAD, PLAIN = "gated", "gated by head", "plain"
# name -> the mixer of all layers
MIXERS: dict[str, Any] = {
    GATED: ("GatedCausalAttention1d", {"gates": {"per": "channel"}}),
    BY_HEAD: ("GatedCausalAttention1d", {"gates": {"per": "head"}}),
    PLAIN: "CausalAttention1d",
}
CASE = "text"
# held-out windows whose attention is looked at
LOOKED_AT = 16


def train_all(config: GatedCausalConfig, seed: int, rate: float) -> list[Figure]:
    """Train every decoder alike at one rate, and look at what it does to held-out text."""
    text = stdlib_text(config.text, config.length, (config.length,))
    (held_out,) = text.held_out.parts
    about = {"data": text.name, "seed": seed, "lr": rate, "steps": config.steps, "length": config.length}
    figures = []
    begins = small_decoder(config, MIXERS[PLAIN], text.vocabulary, seed).state_dict()
    for name, mixers in MIXERS.items():
        network = small_decoder(config, mixers, text.vocabulary, seed, like=begins)
        train(network, text.train, steps=config.steps, batch=config.batch, rate=rate, seed=seed)
        first, largest = looked_at(network, held_out.batch(range(min(LOOKED_AT, len(held_out))), 0).tokens)
        measured = {
            ("train", "bits-per-byte", "bit"): bits_per_byte(network, held_out, config.judged),
            ("none", "first-token", "%"): 100 * first,
            ("none", "largest-activation", "1"): largest,
            ("none", "parameters", "1"): sum(p.numel() for p in network.parameters()),
        }
        case = case_of(CASE, seed, rate)
        # of a network whose activations are no numbers nothing is told but that
        figures += [
            Figure(case, name, *what, value, extra=about)
            for what, value in measured.items()
            if math.isfinite(value)
        ]
    return figures


@torch.no_grad()
def looked_at(network: Any, tokens: Tensor) -> tuple[float, float]:
    """The part of attention that the first token gets, and the largest activation between blocks.

    The first is the mean over blocks, heads, sequences and all tokens behind the first; even attention of N
    tokens would give the mean of 1 / i for i from 2 to N. The second is the largest absolute value of what a
    block hands on.
    """
    received: list[float] = []
    largest: list[float] = []

    def weigh(mixer: Any, given: tuple[Tensor, ...], output: Tensor) -> None:
        query, key, _ = mixer.project(given[0], 0)
        key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
        scores = query @ key.mT * query.shape[-1] ** -0.5
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        weights = scores.masked_fill(later, -torch.inf).softmax(-1)
        received.append(float(weights[..., 1:, 0].mean()))

    def note(block: nn.Module, given: object, output: Tensor) -> None:
        largest.append(float(output.abs().max()))

    hooks = [block.mixer.register_forward_hook(weigh) for block in network.blocks]
    hooks += [block.register_forward_hook(note) for block in network.blocks]
    try:
        network.eval()(tokens)
    finally:
        for hook in hooks:
            hook.remove()
    return sum(received) / len(received), max(largest)
