"""Time of attention in one layer: dense by torch and by the kernel, and by blocks that are chosen."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from qna._core.seeds import derive_seed
from qna.bench.measure.calls import time_calls
from qna.bench.measure.harness import Plan
from qna.labs.proxyattn_prefill.config import ProxyattnPrefillConfig
from qna.labs.proxyattn_prefill.network import middle_maps
from qna.labs.proxyattn_prefill.recall import selector_of
from qna.labs.proxyattn_prefill.selectors import PROXY, RANDOM, WINDOW, random_as_many, window_as_many
from qna.labs.row import Figure
from qna.ops import block_sparse_attention
from qna.parts.block_choice import attend_chosen
from qna.parts.causal_attend import attend_before
from qna.parts.proxy_blocks import kept_share

TORCH, EVERY, CHOICE = "torch, all keys", "kernel, all blocks", "choice alone"


def time_case(length: int) -> str:
    """The case of a length."""
    return f"time-{length}"


def time_length(config: ProxyattnPrefillConfig, folder: Path, length: int) -> list[Figure]:
    """Attention of the middle layer in the first text, all forms in turns."""
    query, key, value = middle_maps(config, folder, length)
    selector = selector_of(config)
    with torch.inference_mode():
        kept = selector.choose(query, key)
        seed = derive_seed(config.seed, "blocks", length, "time")
        by_blocks = partial(block_sparse_attention, query, key, value, block=config.block)
        calls: dict[str, Callable[[], Tensor]] = {
            TORCH: partial(attend_before, query, key, value),
            EVERY: partial(by_blocks, torch.ones_like(kept)),
            PROXY: partial(attend_chosen, query, key, value, selector),
            CHOICE: partial(selector.choose, query, key),
            WINDOW: partial(by_blocks, window_as_many(kept)),
            RANDOM: partial(by_blocks, random_as_many(kept, seed)),
        }
        # what is slower than this is told of one call
        plan = Plan(seconds=config.seconds, patience=4.0)
        times = time_calls(calls, plan=plan)
    about = {"length": length, "heads": query.shape[1], "kv_heads": key.shape[1], "head_dim": query.shape[-1]}
    figures = []
    for name in calls:
        taken = (1e3 * seconds for seconds in times.spread(name))
        figures.append(Figure(time_case(length), name, "forward", "time", "ms", *taken, extra=about))
    share = 100 * kept_share(kept)
    return [*figures, Figure(time_case(length), PROXY, "none", "kept", "%", share, extra=about)]
