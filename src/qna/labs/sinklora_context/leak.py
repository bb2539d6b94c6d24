"""The leak of the wrapped form, shown where nothing can be known before it is read.

Strings are drawn evenly, so that no network that looks back alone can say the first half group better than by
chance; their last half group repeats the first. In the wrapped form the first half group sees the last.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from qna._core.seeds import derive_seed, seeded
from qna.labs.row import Figure
from qna.labs.sinklora_context.config import SinkloraContextConfig
from qna.models.decoder import Decoder, create_decoder

GROUPS, LEAKING = "groups", "wrapped"
LENGTH, SYMBOLS, BATCH = 64, 16, 32
HALF = LENGTH // 8
RATE = 3e-3
CHANCE = math.log2(SYMBOLS)
MOVED, OWN_BITS, FULL_BITS = "none moved", "train own-bits", "train bits"


def show_leak(config: SinkloraContextConfig, seed: int) -> list[Figure]:
    """Train with both forms, and judge each by what it attends in training and by full attention."""
    figures = []
    for name, wrap in ((LEAKING, True), (GROUPS, False)):
        with seeded(derive_seed(seed, "leak")):
            network = create_decoder(
                "decoder_pico", vocabulary=SYMBOLS, mixers=("ShiftedSparseAttention1d", {"wrap": wrap})
            )
        moved = moves(network, seed)
        learn(network, config.leak_steps, seed)
        judged = strings(512, derive_seed(seed, "judged"))
        about = {"symbols": SYMBOLS, "length": LENGTH, "half_group": HALF, "steps": config.leak_steps}
        measured = {
            ("none", "moved", "largest difference of logits"): moved,
            ("train", "own-bits", "bits per symbol"): first_bits(network.train(), judged),
            ("train", "bits", "bits per symbol"): first_bits(network.eval(), judged),
        }
        figures += [
            Figure(f"leak-seed{seed}", name, *what, each, extra=about) for what, each in measured.items()
        ]
    return figures


def strings(count: int, seed: int) -> Tensor:
    """Symbols whose last half group repeats the first, (count, LENGTH)."""
    drawn = torch.randint(SYMBOLS, (count, LENGTH), generator=torch.Generator().manual_seed(seed))
    drawn[:, -HALF:] = drawn[:, :HALF]
    return drawn


@torch.no_grad()
def moves(network: Decoder, seed: int) -> float:
    """By how much logits of the first half group change in training when the last one does."""
    one = strings(16, derive_seed(seed, "moved"))
    other = one.clone()
    other[:, -HALF:] = (other[:, -HALF:] + 1) % SYMBOLS
    network.train()
    return float((network(one) - network(other))[:, :HALF].abs().max())


def learn(network: Decoder, steps: int, seed: int) -> None:
    """To say the next symbol, at every position."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    network.train()
    for step in range(steps):
        drawn = strings(BATCH, derive_seed(seed, "strings", step))
        loss = F.cross_entropy(network(drawn)[:, :-1].flatten(0, 1), drawn[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def first_bits(network: Decoder, judged: Tensor) -> float:
    """Of symbols of the first half group, each from those before it."""
    logits = network(judged)[:, : HALF - 1]
    return F.cross_entropy(logits.flatten(0, 1), judged[:, 1:HALF].flatten()).item() / math.log(2)
