"""The time until the first token behind a long prompt is there, and what is kept of the prompt."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from qna._core.seeds import derive_seed, seeded
from qna.bench.measure.calls import time_calls
from qna.bench.measure.harness import Plan
from qna.labs.cca_context.config import CcaContextConfig
from qna.labs.cca_context.networks import NETWORKS, timed_mixers_of
from qna.labs.row import Figure
from qna.models.decoder import Decoder, create_decoder


def case_at(length: int) -> str:
    """The case of a prompt's length."""
    return f"prompt-{length}"


def time_prompt(config: CcaContextConfig, length: int) -> list[Figure]:
    """Decoders with random weights read a prompt in turns, one core, and keep what they need to go on."""
    generator = torch.Generator().manual_seed(derive_seed(config.seed, "prompt"))
    tokens = torch.randint(256, (1, length), generator=generator)
    networks = {}
    for name in NETWORKS:
        with seeded(derive_seed(config.seed, "time")):
            networks[name] = create_decoder(
                "decoder_pico",
                mixers=timed_mixers_of(config, name, length),
                dim=config.time_dim,
                depth=config.time_depth,
                num_heads=config.time_heads,
                kv_heads=config.time_heads,
                hidden=2 * config.time_dim,
            ).eval()
    calls: dict[str, Callable[[], object]] = {
        name: partial(_read, network, tokens) for name, network in networks.items()
    }
    times = time_calls(calls, plan=Plan(seconds=config.seconds, patience=20.0))
    about = {"length": length, "dim": config.time_dim, "depth": config.time_depth}
    about |= {"heads": config.time_heads, "near": config.time_window, "group": config.time_group}
    figures = []
    for name, network in networks.items():
        spread = (1e3 * value for value in times.spread(name))
        figures += [
            Figure(case_at(length), name, "forward", "time", "ms", *spread, extra=about),
            Figure(
                case_at(length), name, "none", "state", "bytes", network.state_bytes((1, length)), extra=about
            ),
        ]
    return figures


@torch.inference_mode()
def _read(network: Decoder, tokens: Tensor) -> Tensor:
    logits, _ = network.step(tokens, network.init_state(1))
    return logits[:, -1].argmax(-1)
