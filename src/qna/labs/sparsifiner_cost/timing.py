"""What seeing fewer keys costs and saves: inference of whole networks, and the parts of one attention."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from qna._core.seeds import derive_seed, seeded
from qna.adapters._parts.attention import attended
from qna.adapters._parts.chosen_keys import all_masked, only_chosen
from qna.adapters.sparsifiner import Sparsifiner
from qna.analysis.cost import total_macs
from qna.bench.measure.calls import time_calls
from qna.bench.measure.harness import Plan
from qna.labs.row import Figure
from qna.labs.sparsifiner_cost.config import SparsifinerCostConfig
from qna.models.registry import create

NETWORKS = WHOLE, SPARSE, SHORT = "all keys", "some keys", "some keys, tokens taken out"


def network_case(size: int) -> str:
    """The case of whole networks."""
    return f"network-{size}px"


def attention_case(size: int) -> str:
    """The case of the parts of one attention."""
    return f"attention-{size}px"


def time_size(config: SparsifinerCostConfig, size: int) -> list[Figure]:
    """One size of image: networks in turns, and the parts of one attention in turns."""
    with seeded(derive_seed(config.seed, "time", size)):
        dense = create(config.model, img_size=size, num_classes=10).eval()
        sparse = Sparsifiner(config.keep).apply(copy.deepcopy(dense)).eval()
        short = Sparsifiner(
            config.keep, token_keep_rate=config.tokens, token_layers=config.layers, drop_tokens=True
        )
        networks = {WHOLE: dense, SPARSE: sparse, SHORT: short.apply(copy.deepcopy(dense)).eval()}
        images = torch.randn(config.batch, 3, size, size)
        attention: Any = sparse.blocks[0].attn  # type: ignore[index, union-attr]
        shape = config.batch, attention.num_heads, attention.tokens, attention.head_dim
        q, k, v = (torch.randn(shape) for _ in range(3))
    about = {"model": config.model, "batch": config.batch, "size": size, "keep": config.keep}
    found = _timed(
        config, network_case(size), {n: partial(_infer, n_, images) for n, n_ in networks.items()}, about
    )
    found += [
        Figure(network_case(size), name, "none", "macs", "MMAC", _macs(network, size) / 1e6, extra=about)
        for name, network in networks.items()
        if name != SHORT
    ]
    chosen = attention.mask_predictor.choose(q, k, attention.config.kept(attention.tokens))
    image = q[:, :, attention.prefix :]
    parts = {
        "all products": partial(attended, attention, q, k, v),
        "choice": partial(attention.mask_predictor.choose, q, k, chosen.shape[-1]),
        "chosen products": partial(only_chosen, image, k, v, chosen, attention.scale),
        "masked products": partial(all_masked, image, k, v, chosen, attention.scale),
    }
    extra = {**about, "tokens": attention.tokens, "keys": chosen.shape[-1], "heads": attention.num_heads}
    return found + _timed(config, attention_case(size), parts, extra)


def _timed(
    config: SparsifinerCostConfig, case: str, calls: Mapping[str, Callable[[], Any]], about: dict[str, Any]
) -> list[Figure]:
    quiet = {name: partial(_without_gradients, call) for name, call in calls.items()}
    times = time_calls(quiet, plan=Plan(seconds=config.seconds, patience=20.0))
    figures = []
    for name in calls:
        taken = (1e3 * value for value in times.spread(name))
        figures.append(Figure(case, name, "forward", "time", "ms", *taken, extra=about))
    return figures


@torch.no_grad()
def _without_gradients(call: Callable[[], Any]) -> Any:
    return call()


def _infer(network: Any, images: torch.Tensor) -> Any:
    return network(images)


def _macs(network: Any, size: int) -> float:
    """Of an image, products of dense attention included."""
    total = total_macs(network, (1, 3, size, size))
    for block in network.blocks:
        if not hasattr(block.attn, "macs"):
            tokens = network.num_prefix_tokens + network.patch_embed.num_patches
            total += 2 * tokens**2 * block.attn.num_heads * block.attn.head_dim
    return float(total)
