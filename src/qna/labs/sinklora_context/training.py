"""A decoder of short contexts, and its adaptation to a longer one by each way to attend in training."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qna._core.seeds import derive_seed, seeded
from qna._core.tensor_file import read_tensors, write_tensors
from qna.adapters import LoRA
from qna.data.text import Bytes, TokenData, load_text
from qna.labs.paired import case_of
from qna.labs.row import Figure
from qna.labs.sinklora_context.config import SinkloraContextConfig
from qna.labs.warmed_cosine import set_rate
from qna.models.decoder import Decoder, create_decoder

NONE, FULL, S2, WRAPPED, SF = "no fine-tuning", "full", "s2", "s2 wrapped", "sf"
# how each attends while it is adapted; in inference all attend everything
WAYS: Mapping[str, tuple[str, dict[str, Any]]] = {
    FULL: ("CausalAttention1d", {}),
    S2: ("ShiftedSparseAttention1d", {}),
    WRAPPED: ("ShiftedSparseAttention1d", {"wrap": True}),
    SF: ("SinkFixedAttention1d", {}),
}
CASE, BASE_CASE = "long", "base"
PLAIN, INTERPOLATED, SHORT = "as it is", "interpolated", "short context"
BITS, OWN, TIME = "train bits", "train own-bits", "train time"
HEADS, KV_HEADS = 4, 2


def train_base(config: SinkloraContextConfig, folder: Path) -> list[Figure]:
    """The decoder that all are adapted from, and what it makes of long contexts without."""
    data = load(config)
    base = base_of(config, folder, data)
    short = load_text(
        config.data, Bytes(), context=config.short, lengths=(config.short,), suffixes=(".txt", ".md", ".py"),
        share=0.1, limit=0, seed=0,
    )  # fmt: skip
    found = {SHORT: bits(base, held_out(short, config.judged * config.times))}
    for name, scale in ((PLAIN, 1.0), (INTERPOLATED, float(config.times))):
        found[name] = bits(with_weights(config, WAYS[FULL], scale, base), held_out(data, config.judged))
    about = {"data": config.data, "short": config.short, "long": config.long, "steps": config.base_steps}
    about |= {"parameters": sum(p.numel() for p in base.parameters()), "judged": config.judged}
    return [
        Figure(BASE_CASE, name, "train", "bits", "bits per byte", each, extra=about)
        for name, each in found.items()
    ]


def adapt_all(config: SinkloraContextConfig, folder: Path, seed: int) -> list[Figure]:
    """Every way from the same weights, on the same sequences in the same order."""
    data = load(config)
    base, judged = base_of(config, folder, data), held_out(data, config.judged)
    case = case_of(CASE, seed, config.rate)
    about = {"data": config.data, "seed": seed, "lr": config.rate, "steps": config.steps}
    about |= {"long": config.long, "group": config.long // 4, "judged": config.judged}
    # what is better without: positions as they were, or interpolated
    without = min(
        bits(with_weights(config, WAYS[FULL], scale, base), judged) for scale in (1.0, float(config.times))
    )
    figures = [Figure(case, NONE, "train", "bits", "bits per byte", without, extra=about)]
    for name, way in WAYS.items():
        network = with_weights(config, way, float(config.times), base)
        with seeded(derive_seed(seed, "updates")):
            LoRA().apply(network)
        seconds = train(
            network, data, length=config.long, tokens=config.tokens, steps=config.steps, rate=config.rate,
            seed=derive_seed(seed, "adapting"),
        )  # fmt: skip
        measured = {
            ("bits", "bits per byte"): bits(network, judged),
            ("own-bits", "bits per byte"): bits(network, judged, own=True),
            ("time", "s/step"): seconds / config.steps,
        }
        figures += [
            Figure(case, name, "train", *what, value, extra=about) for what, value in measured.items()
        ]
    return figures


def load(config: SinkloraContextConfig) -> TokenData:
    """The text, cut for the long context."""
    return load_text(
        config.data, Bytes(), context=config.long, lengths=(config.long,), suffixes=(".txt", ".md", ".py"),
        share=0.1, limit=0, seed=0,
    )  # fmt: skip


def base_of(config: SinkloraContextConfig, folder: Path, data: TokenData) -> Decoder:
    """The decoder of short contexts: from the run's folder, or trained where it is not there (any more)."""
    path = folder / "base.safetensors"
    network = decoder(config, WAYS[FULL], 1.0)
    if path.is_file():
        network.load_state_dict(read_tensors(path)[0])
        return network
    train(
        network, data, length=config.short, tokens=config.tokens, steps=config.base_steps,
        rate=config.base_rate, seed=derive_seed(config.seed, "base"),
    )  # fmt: skip
    write_tensors(path, network.state_dict(), {})
    return network


def decoder(config: SinkloraContextConfig, way: tuple[str, dict[str, Any]], scale: float) -> Decoder:
    """A decoder that attends one way in training, its positions divided by `scale`."""
    name, arguments = way
    with seeded(derive_seed(config.seed, "decoder")):
        return create_decoder(
            "decoder_pico",
            dim=config.dim,
            depth=config.depth,
            hidden=8 * config.dim // 3,
            num_heads=HEADS,
            kv_heads=KV_HEADS,
            mixers=(name, {**arguments, "rope_scale": scale}),
        )


def with_weights(
    config: SinkloraContextConfig, way: tuple[str, dict[str, Any]], scale: float, base: Decoder
) -> Decoder:
    """A decoder of another way with the weights of `base`: all ways have the same."""
    network = decoder(config, way, scale)
    network.load_state_dict(base.state_dict())
    return network


def train(
    network: Decoder, data: TokenData, *, length: int, tokens: int, steps: int, rate: float, seed: int
) -> float:
    """AdamW, a warm-up of a tenth of the steps, then a cosine to 0; return CPU seconds."""
    stream = torch.from_numpy(data.train.tokens.astype("int64"))
    generator = torch.Generator().manual_seed(seed)
    learned = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, betas=(0.9, 0.98), weight_decay=0.01)
    network.train()
    begun = time.process_time()
    for step in range(steps):
        set_rate(optimizer, rate, step, steps, warm=steps // 10)
        starts = torch.randint(len(stream) - length, (max(1, tokens // length),), generator=generator)
        cut = torch.stack([stream[at : at + length + 1] for at in starts.tolist()])
        loss = F.cross_entropy(network(cut[:, :-1]).flatten(0, 1), cut[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
    return time.process_time() - begun


def held_out(data: TokenData, count: int) -> tuple[Tensor, Tensor]:
    """Tokens and targets of so many windows, from all of the held-out text, (count, N) each."""
    windows = data.held_out.parts[0]
    count = min(count, len(windows))
    batch = windows.batch([number * len(windows) // count for number in range(count)], 0)
    return batch.tokens, batch.targets


@torch.no_grad()
def bits(network: Decoder, judged: tuple[Tensor, Tensor], *, own: bool = False) -> float:
    """Bits per byte by full attention, or with `own` by what the network attends in training."""
    network.train(own)
    every = [
        F.cross_entropy(network(tokens).flatten(0, 1), targets.flatten(), reduction="sum").item()
        for tokens, targets in zip(*(part.split(16) for part in judged), strict=True)
    ]
    return sum(every) / judged[1].numel() / math.log(2)
