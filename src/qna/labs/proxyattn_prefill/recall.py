"""How much of dense attention lies in the blocks that are kept, and how alike heads are."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from statistics import mean

import torch
import torch.nn.functional as F
from torch import Tensor

from qna._core.seeds import derive_seed
from qna.labs.proxyattn_prefill.config import ProxyattnPrefillConfig
from qna.labs.proxyattn_prefill.network import keep_middle, read
from qna.labs.proxyattn_prefill.selectors import PROXY, RANDOM, WINDOW, random_as_many, window_as_many
from qna.labs.row import Figure
from qna.parts.proxy_blocks import ProxyBlocks, kept_share

OWN_PROXIES = "a proxy for each head"
HEADS = "heads"


def text_case(length: int, text: int) -> str:
    """The case of one text."""
    return f"recall-{length}-text{text}"


def selector_of(config: ProxyattnPrefillConfig, proxies: int | None = None) -> ProxyBlocks:
    """Proxies as the configuration says, or another number of them."""
    return ProxyBlocks(
        block=config.block, proxies=proxies or config.proxies, gamma=config.gamma, least=config.least
    )


def recall_of_text(config: ProxyattnPrefillConfig, folder: Path, length: int, text: int) -> list[Figure]:
    """Means over the layers, heads and queries of one text."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for layer, maps in read(config, folder, length, text):
        if text == 0:
            keep_middle(config, folder, length, layer=layer, maps=maps)
        query, key, _ = maps
        places = asked(config, length, text)
        masses = masses_of(query, key, places, config.block)
        kept = selector_of(config).choose(query, key)
        seed = derive_seed(config.seed, "blocks", length, text, layer)
        chosen = {PROXY: kept, WINDOW: window_as_many(kept), RANDOM: random_as_many(kept, seed)}
        chosen[OWN_PROXIES] = selector_of(config, query.shape[1]).choose(query, key)
        for name, blocks in chosen.items():
            found[name, "recall"].append(float(recalled(masses, blocks, places, config.block)))
            found[name, "kept"].append(kept_share(blocks))
        own, others, any_ = alike(masses, kept, places, config.block)
        found[HEADS, "own-best"].append(own)
        found[HEADS, "others-best"].append(others)
        found[HEADS, "drawn"].append(any_)
    about = {"length": length, "text": text, "trained_at": config.context, "gamma": config.gamma}
    about |= {"block": config.block, "proxies": config.proxies, "least": config.least}
    return [
        Figure(text_case(length, text), name, "none", figure, "%", 100 * mean(values), extra=about)
        for (name, figure), values in found.items()
    ]


def asked(config: ProxyattnPrefillConfig, length: int, text: int) -> Tensor:
    """Places of the queries that are looked at: one in each stretch of the text, drawn."""
    count = min(config.queries, length)
    draws = torch.Generator().manual_seed(derive_seed(config.seed, "queries", length, text))
    stretch = length // count
    return torch.arange(count) * stretch + torch.randint(stretch, (count,), generator=draws)


def masses_of(query: Tensor, key: Tensor, places: Tensor, block: int) -> Tensor:
    """Attention that each block of keys gets of the queries at `places`: (h, n, R), rows of sum 1."""
    length, shared = key.shape[-2], query.shape[1] // key.shape[1]
    rows = -(-length // block)
    hidden = torch.arange(length) > places[:, None]
    made = []
    for head in range(query.shape[1]):
        logits = query[0, head, places] @ key[0, head // shared].T * query.shape[-1] ** -0.5
        shares = logits.masked_fill(hidden, -torch.inf).softmax(-1)
        made.append(F.pad(shares, (0, rows * block - length)).unflatten(-1, (rows, block)).sum(-1))
    return torch.stack(made)


def recalled(masses: Tensor, kept: Tensor, places: Tensor, block: int) -> Tensor:
    """The part of it that lies in blocks that are kept, mean over heads and queries."""
    return (masses * kept[0, :, places // block]).sum(-1).mean()


def alike(masses: Tensor, kept: Tensor, places: Tensor, block: int) -> tuple[float, float, float]:
    """What the best blocks of a head hold of its own attention, those of another head, and drawn ones.

    As many blocks as each query's row keeps in the mean over heads; of all queries that have more than that.
    """
    count = kept[0, :, places // block].sum(-1).float().mean(0).round().long()
    seen = places // block + 1
    some = count < seen
    if not some.any():
        return 1.0, 1.0, 1.0
    masses, count, seen = masses[:, some], count[some], seen[some]
    places_of = masses.argsort(dim=-1, descending=True).argsort(-1)
    best = places_of < count[:, None]
    held = torch.einsum("gnr,hnr->ghn", masses, best.float()).mean(-1)
    heads = len(held)
    own = float(held.diagonal().mean())
    others = float((held.sum() - held.diagonal().sum()) / (heads * (heads - 1))) if heads > 1 else own
    return own, others, float((count / seen).mean())
