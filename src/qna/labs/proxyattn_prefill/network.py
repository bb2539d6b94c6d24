"""The decoder: trained at a short context, and what its layers ask and answer in a long text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from qna._core.errors import InvalidInput
from qna._core.files import write_whole
from qna._core.seeds import derive_seed, seeded
from qna.data.text import Bytes, TokenData, load_text
from qna.labs.proxyattn_prefill.config import ProxyattnPrefillConfig
from qna.labs.row import Figure
from qna.models.decoder import BYTES, VARIANTS, Decoder, create_decoder
from qna.parts.block_choice import attend_chosen
from qna.parts.proxy_blocks import ProxyBlocks

WEIGHTS = "decoder.pt"
CASE, NETWORK, UNTRAINED = "network", "trained", "not trained"
# of all text, held out for reading
_SHARE = 0.1


@lru_cache(maxsize=1)
def text_of(config: ProxyattnPrefillConfig) -> TokenData:
    """The text, and its part that the network never learns."""
    return load_text(
        config.data,
        Bytes(),
        context=config.context,
        lengths=(config.context,),
        suffixes=(".py", ".txt", ".md"),
        share=_SHARE,
        limit=0,
        seed=config.seed,
    )


def train(config: ProxyattnPrefillConfig, folder: Path) -> list[Figure]:
    """Train the decoder, keep its weights, and tell how well it knows held-out text."""
    data = text_of(config)
    network = built(config)
    weights = [*network.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=config.rate, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _height(step, config.steps))
    draws = torch.Generator().manual_seed(derive_seed(config.seed, "batches"))
    first = bits_per_byte(network, data)
    network.train()
    for step in range(config.steps):
        chosen = torch.randint(len(data.train), (config.batch,), generator=draws)
        batch = data.train.batch(chosen.tolist(), derive_seed(config.seed, "step", step) or 1)
        loss = F.cross_entropy(network(batch.tokens).flatten(0, 1), batch.targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
    weights_made = network.state_dict()
    plain, scaled = (
        bits_at(config, data, weights_made, stretched)
        for stretched in (1.0, config.lengths[0] / config.context)
    )
    kept = {"weights": weights_made, "interpolated": scaled < plain}
    write_whole(folder / WEIGHTS, partial(torch.save, kept))
    about = {"data": config.data, "origin": data.origin, "steps": config.steps, "context": config.context}
    count = sum(p.numel() for p in weights)
    long = {
        "length": config.lengths[0],
        "bits-per-byte-long-plain": plain,
        "bits-per-byte-long-scaled": scaled,
    }
    found = [
        Figure(CASE, name, mode, metric, "1", value, extra=about)
        for name, bits in ((NETWORK, bits_per_byte(network, data)), (UNTRAINED, first))
        for mode, metric, value in (("train", "bits-per-byte", bits), ("none", "parameters", count))
    ]
    return found + [
        Figure(CASE, NETWORK, "train", metric, "1", value, extra={**about, "length": long["length"]})
        for metric, value in long.items()
        if metric != "length"
    ]


@torch.no_grad()
def bits_per_byte(network: Decoder, data: TokenData) -> float:
    """Of the first held-out windows at the context of training."""
    held_out = data.held_out.parts[0]
    batch = held_out.batch(range(min(16, len(held_out))), 0)
    logits = network.eval()(batch.tokens)
    return float(F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())) / math.log(2)


@torch.no_grad()
def bits_at(config: ProxyattnPrefillConfig, data: TokenData, weights: Any, stretched: float) -> float:
    """Of the last half of the first held-out text, at the shortest length and with divided positions."""
    network = built(config, stretched=stretched)
    network.load_state_dict(weights)
    length = config.lengths[0]
    stream = torch.from_numpy(data.held_out.parts[0].tokens[: length + 1].astype("int64"))
    logits = network.eval()(stream[None, :-1])[0, length // 2 :]
    return float(F.cross_entropy(logits, stream[1 + length // 2 :])) / math.log(2)


def built(config: ProxyattnPrefillConfig, *, stretched: float = 1.0) -> Decoder:
    """The decoder with its first weights, its positions divided by `stretched`."""
    with seeded(derive_seed(config.seed, "weights")):
        return create_decoder(
            config.model,
            vocabulary=BYTES,
            mixers=("CausalAttention1d", {"rope_scale": float(stretched)}),
        )


def trained(config: ProxyattnPrefillConfig, folder: Path, length: int) -> Decoder:
    """The trained decoder for texts of a length.

    Positions are interpolated to those it was trained at, or stay as they are: whichever knows the first
    held-out text better at the shortest length.
    """
    if not (folder / WEIGHTS).exists():
        train(config, folder)
    kept = torch.load(folder / WEIGHTS, weights_only=True)
    network = built(config, stretched=length / config.context if kept["interpolated"] else 1.0)
    network.load_state_dict(kept["weights"])
    return network.eval()


def middle_maps(config: ProxyattnPrefillConfig, folder: Path, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of the layer in the middle in the first text; they stay in the folder."""
    path = folder / f"maps-{length}.pt"
    if not path.exists():
        for layer, maps in read(config, folder, length, 0):
            keep_middle(config, folder, length, layer=layer, maps=maps)
    return tuple(torch.load(path, weights_only=True))  # pyright: ignore[reportReturnType]


def keep_middle(
    config: ProxyattnPrefillConfig, folder: Path, length: int, *, layer: int, maps: tuple[Tensor, ...]
) -> None:
    """Keep the maps of the first text where they are those of the layer in the middle."""
    if layer == VARIANTS[config.model].depth // 2:
        write_whole(folder / f"maps-{length}.pt", partial(torch.save, [t.clone() for t in maps]))


def read(
    config: ProxyattnPrefillConfig, folder: Path, length: int, text: int
) -> Iterator[tuple[int, tuple[Tensor, Tensor, Tensor]]]:
    """A held-out text through the network with all blocks kept: each layer's queries, keys and values.

    Yields:
        the layer's number, and (1, h, N, d), (1, h', N, d) twice, turned to their positions.

    Raises:
        InvalidInput: there is too little held-out text.
    """
    network = trained(config, folder, length)
    stream = text_of(config).held_out.parts[0].tokens
    if (text + 1) * length > len(stream):
        raise InvalidInput(
            f"data {config.data!r} has {len(stream):,} held-out tokens and {text + 1} texts of {length:,} "
            "are wanted; give more text or fewer texts"
        )
    tokens = torch.from_numpy(stream[text * length : (text + 1) * length].astype("int64"))[None]
    with torch.inference_mode():
        x = network.embed(tokens)
        for layer, block in enumerate(network.blocks):
            block = cast(Any, block)
            normed = block.norm1(x)
            query, key, value = block.mixer.project(normed, 0)
            yield layer, (query, key, value)
            attended = attend_chosen(query, key, value, ProxyBlocks(gamma=1.0))
            x = x + block.mixer.joined(attended, normed)
            x = x + block.mlp(block.norm2(x))


def _height(step: int, steps: int) -> float:
    """Of the learning rate: up over a tenth, then down a cosine."""
    warm = max(1, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
