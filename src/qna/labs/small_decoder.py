"""Small decoders of text, and of sequences that ask for what was read: what laboratories of mixers train."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core.errors import InvalidInput
from qna._core.seeds import derive_seed, seeded
from qna.data.text import STDLIB, UNSCORED, Bytes, Drawn, TokenBatch, TokenData, load_text
from qna.labs.config_checks import check_counts, check_minutes, check_multiple
from qna.models.decoder import Decoder, create_decoder
from qna.parts.kv_cache import CachePolicy


@dataclass(frozen=True)
class SmallDecoderConfig:
    """Decoders that are alike but for their mixers.

    Attributes:
        dim: channels, a multiple of 32.
        depth: blocks.
        heads: of every mixer, of keys as well.
        steps: of training.
        batch: sequences of a step.
        seeds: training runs of each contender.
        minutes: the budget in CPU minutes.
        seed: the first seed.
    """

    dim: int = 64
    depth: int = 2
    heads: int = 2
    steps: int = 500
    batch: int = 16
    seeds: int = 2
    minutes: float = 15.0
    seed: int = 0

    def __post_init__(self):
        check_counts(self, "depth", "heads", "steps", "batch", "seeds")
        check_multiple(self, "dim", 32)
        check_minutes(self.minutes)


def small_decoder(
    config: SmallDecoderConfig,
    mixers: Any,
    vocabulary: int,
    seed: int,
    *,
    like: Mapping[str, Tensor] | None = None,
) -> Decoder:
    """A decoder whose layers mix by `mixers` in turn.

    Args:
        config: its sizes.
        mixers: as of `DecoderVariant`.
        vocabulary: tokens that there are.
        seed: of its weights.
        like: weights of another decoder, which it takes where it has those names; None for all of its own.

    Raises:
        InvalidInput: `like` has names that it has not.
    """
    with seeded(derive_seed(seed, "weights")):
        network = create_decoder(
            "decoder_pico",
            vocabulary=vocabulary,
            mixers=mixers,
            dim=config.dim,
            depth=config.depth,
            num_heads=config.heads,
            kv_heads=config.heads,
            hidden=2 * config.dim,
        )
    if like is not None:
        strange = network.load_state_dict(like, strict=False).unexpected_keys
        if strange:
            raise InvalidInput(f"a decoder of {mixers} has no {', '.join(strange)}")
    return network


# all files are looked for, and every part of a laboratory asks for the same
@lru_cache(maxsize=1)
def stdlib_text(limit: int, context: int, lengths: tuple[int, ...], seed: int = 0) -> TokenData:
    """Bytes of the source of Python's standard library, `limit` of them to train on, other files held out."""
    return load_text(
        STDLIB,
        Bytes(),
        context=context,
        lengths=lengths,
        suffixes=(".py",),
        share=0.1,
        limit=limit,
        seed=seed,
    )


def train(network: nn.Module, data: Any, *, steps: int, batch: int, rate: float, seed: int) -> None:
    """AdamW on the cross entropy of what is asked, gradients of norm 1 at most; every network sees the same.

    The rate rises for a tenth of the steps, then falls along a cosine. Training ends where the loss is no
    number any more: no later step could mend that.

    Args:
        network: (B, N) -> logits (B, N, vocabulary).
        data: sequences, `TokenWindows` or `Drawn`.
        steps: of training.
        batch: sequences of a step.
        rate: the highest.
        seed: of which sequences, and of where text is cut.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=0.1, cycle_momentum=False
    )
    drawn = torch.Generator().manual_seed(derive_seed(seed, "order"))
    network.train()
    for step in range(steps):
        numbers = torch.randint(len(data), (batch,), generator=drawn).tolist()
        given = data.batch(numbers, derive_seed(seed, "cut", step))
        loss = cross_entropy(network(given.tokens), given)
        if not math.isfinite(loss.item()):
            return
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def cross_entropy(logits: Tensor, batch: TokenBatch) -> Tensor:
    """Nats of each token that is asked for, in the mean."""
    return F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=UNSCORED)


@torch.no_grad()
def right(network: nn.Module, kind: Any, length: int, count: int, seed: int) -> float:
    """Answers in a hundred that the network gives right, of sequences of a kind that it was not trained
    on."""
    network.eval()
    given = Drawn(kind, length, count, "held out").batch(range(count), seed)
    asked = given.targets != UNSCORED
    return 100 * float((network(given.tokens).argmax(-1) == given.targets)[asked].double().mean())


@torch.no_grad()
def bits_per_byte(
    network: Decoder, windows: Any, count: int, *, policy: CachePolicy | None = None, behind: int = 0
) -> float:
    """Of held-out text in bytes, at most what evenly likely tokens cost; so much where it is no number.

    Args:
        network: of bytes.
        windows: `TokenWindows`.
        count: the first windows, at most.
        policy: what is kept of keys and values; None for the network as it is.
        behind: positions of each window that are read and not scored.
    """
    network.eval()
    most, given = math.log2(network.vocabulary), windows.batch(range(min(count, len(windows))), 0)
    if policy is None:
        logits = network(given.tokens)
    else:
        logits, _ = network.step(given.tokens, network.init_state(len(given.tokens), policy=policy))
    scored = TokenBatch(given.tokens[:, behind:], given.targets[:, behind:])
    bits = cross_entropy(logits[:, behind:], scored).item() / math.log(2)
    return min(bits, most) if math.isfinite(bits) else most
