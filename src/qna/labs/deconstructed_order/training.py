"""Training decoders whose layers mix by one of seven mechanisms, and what they lose and look at."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from statistics import mean
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from qna._core.seeds import derive_seed, seeded
from qna.analysis import indicators_of
from qna.data.text import STDLIB, Bytes, Drawn, Induction, TokenBatch, TokenData, load_text
from qna.labs.deconstructed_order.config import DeconstructedOrderConfig
from qna.labs.paired import case_of
from qna.labs.row import Figure
from qna.models.decoder import Decoder, create_decoder, without_layers

TEXT, INDUCTION = "text", "induction"
TASKS = (TEXT, INDUCTION)
STANDARD = "Standard"
# in the paper's order under uniform replacement: variants of one tier have no order among each other
TIERS: tuple[tuple[str, ...], ...] = (
    (STANDARD,),
    ("Approximate", "FixedSeqQK", "StaticEmbQK"),
    ("RndEmbQK",),
    ("Non-approximate", "MLP"),
)
VARIANTS: Mapping[str, str] = {
    "Approximate": "TaylorAttention1d",
    "FixedSeqQK": "FixedTextQueryKey1d",
    "StaticEmbQK": "StaticQueryKey1d",
    "RndEmbQK": "RandomQueryKey1d",
    "Non-approximate": "KeyOnlyAttention1d",
    "MLP": "PositionwiseMlp1d",
}
UNIFORM, HYBRID, SKIP = "uniform", "hybrid", "skip"
NAMES = (STANDARD, *(f"{name} {form}" for form in (UNIFORM, HYBRID, SKIP) for name in VARIANTS))
# what of the attention is told: of a layer the mean over heads and sequences, and of a decoder over layers
INDICATORS = {
    "entropy": "nats",
    "concentration": "1",
    "head-diversity": "1",
    "sink": "1",
    "local-focus-1": "1",
}
BETAS, DECAY, CLIP = (0.9, 0.99), 0.1, 1.0
# a batch of the step of a training run
Batches = Callable[[int], TokenBatch]


def train_all(config: DeconstructedOrderConfig, task: str, seed: int) -> list[Figure]:
    """Train every decoder alike on one task, and measure each; hybrids also without their odd layers."""
    made = _text if task == TEXT else _induction
    batches, held_out, vocabulary, opening, per_byte = made(config, seed)
    steps = config.text_steps if task == TEXT else config.induction_steps
    about = {
        "task": task,
        "seed": seed,
        "steps": steps,
        "lr": config.rate,
        "python": platform.python_version(),
    }
    figures = []
    for name, mixers in _mixers(len(opening)):
        with seeded(derive_seed(seed, "weights")):
            decoder = build(config, mixers, vocabulary)
        if decoder.text is not None:
            decoder.fix_text(opening)
        train(decoder, batches, steps, config.rate)
        contenders = {name: decoder}
        if name.endswith(HYBRID):
            skipped = without_layers(decoder, range(1, config.depth + 1, 2))
            contenders[f"{name.removesuffix(HYBRID)}{SKIP}"] = skipped
        for which, network in contenders.items():
            measured = measure(network, held_out, per_byte, config.looked_at)
            case = case_of(task, seed, config.rate)
            figures += [Figure(case, which, *what, value, extra=about) for what, value in measured.items()]
    return figures


def build(config: DeconstructedOrderConfig, mixers: Any, vocabulary: int) -> Decoder:
    """A decoder of these mixers in turn."""
    sizes = {"dim": config.dim, "depth": config.depth, "num_heads": 4, "kv_heads": 4}
    return create_decoder(
        "decoder_pico", vocabulary=vocabulary, mixers=mixers, hidden=8 * config.dim // 3, **sizes
    )


def train(decoder: Decoder, batches: Batches, steps: int, rate: float) -> None:
    """Cross entropy of what is asked, by AdamW; gradients are clipped."""
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=rate, betas=BETAS, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps + 1, pct_start=0.1, cycle_momentum=False
    )
    decoder.train()
    for step in range(steps):
        optimizer.zero_grad()
        _nats(decoder, batches(step)).backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), CLIP)
        optimizer.step()
        schedule.step()


@torch.no_grad()
def measure(
    decoder: Decoder, held_out: TokenBatch, per_byte: float, looked_at: int
) -> dict[tuple[str, str, str], float]:
    """(mode, metric, unit) -> figure: what is lost, what is right, and how attention looks."""
    decoder.eval()
    nats, right, asked = 0.0, 0, 0
    for tokens, targets in zip(held_out.tokens.split(64), held_out.targets.split(64), strict=True):
        logits, scored = decoder(tokens), targets >= 0
        nats += float(F.cross_entropy(logits[scored].double(), targets[scored], reduction="sum"))
        right += int((logits.argmax(-1) == targets)[scored].sum())
        asked += int(scored.sum())
    found = {
        ("train", "loss", "bits"): nats / asked / math.log(2) * per_byte,
        ("train", "right", "%"): 100 * right / asked,
        ("none", "parameters", "1"): sum(p.numel() for p in decoder.parameters()),
    }
    layers = [asdict(layer) for layer in indicators_of(decoder, held_out.tokens[:looked_at]).values()]
    if layers:
        for layer in layers:
            layer["local_focus_1"] = layer["local_focus"][1]
        for metric, unit in INDICATORS.items():
            found["none", metric, unit] = mean(layer[metric.replace("-", "_")] for layer in layers)
    return found


def _mixers(length: int) -> Iterator[tuple[str, Any]]:
    """Decoders that are trained, by name, and the mixers of their layers in turn: odd layers come first."""
    yield STANDARD, "CausalAttention1d"
    for form in (UNIFORM, HYBRID):
        for name, mixer in VARIANTS.items():
            one = (mixer, {"length": length}) if name == "FixedSeqQK" else mixer
            yield f"{name} {form}", (one,) if form == UNIFORM else (one, "CausalAttention1d")


def _nats(decoder: Decoder, batch: TokenBatch) -> Tensor:
    asked = batch.targets >= 0
    return F.cross_entropy(decoder(batch.tokens)[asked], batch.targets[asked])


def _text(config: DeconstructedOrderConfig, seed: int) -> tuple[Batches, TokenBatch, int, Tensor, float]:
    """Windows at places drawn for each step; what is held out is the same for all seeds."""
    data: TokenData = load_text(
        STDLIB, Bytes(), context=config.context, lengths=(config.context,), suffixes=(".py",), share=0.1,
        limit=config.text_bytes, seed=0,
    )  # fmt: skip

    def batches(step: int) -> TokenBatch:
        of_step = derive_seed(seed, "windows", step)
        places = np.random.default_rng(of_step).integers(len(data.train), size=config.text_batch)
        return data.train.batch(places, of_step)

    (held_out,) = data.held_out.parts
    judged = np.linspace(0, len(held_out) - 1, min(config.judged, len(held_out))).astype(int)
    opening = data.train.batch([0], 0).tokens[0]
    return batches, held_out.batch(judged, 0), data.vocabulary, opening, data.tokens_per_byte or 1.0


def _induction(config: DeconstructedOrderConfig, seed: int) -> tuple[Batches, TokenBatch, int, Tensor, float]:
    """Sequences that are drawn once and for all steps apart."""
    kind, size = Induction(config.symbols), config.induction_batch
    train_on = Drawn(kind, config.length, size * config.induction_steps, f"train {seed}")
    held_out = Drawn(kind, config.length, config.judged, "held out")

    def batches(step: int) -> TokenBatch:
        return train_on.batch(range(step * size, (step + 1) * size), 0)

    judged = held_out.batch(range(config.judged), 0)
    return batches, judged, kind.vocabulary, train_on.batch([0], 0).tokens[0], 1.0
