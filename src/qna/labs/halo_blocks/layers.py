"""What the layers cost, forward and with the gradients, in interleaved turns."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qna._core.seeds import derive_seed, seeded
from qna.bench.measure.calls import peaks_of_calls, time_calls
from qna.bench.measure.contender import BACKWARD, FORWARD
from qna.bench.measure.harness import Plan
from qna.labs.halo_blocks.config import HaloBlocksConfig
from qna.labs.halo_blocks.networks import CONTENDERS, attention, sizes
from qna.labs.row import Figure
from qna.mixers import HaloAttention2d

CASE = "layers"
# of the map that the layers get: positions per axis and channels
SIDE, DIM = 32, 32
# a call that takes longer counts once; no default case comes near
PATIENCE = 60.0


def measure_layers(config: HaloBlocksConfig) -> list[Figure]:
    """Time and peak memory of every layer, on a map of `SIDE` x `SIDE` positions and `DIM` channels."""
    figures = []
    for mode in (FORWARD, BACKWARD):
        calls = {name: _call(config, name, mode) for name in CONTENDERS}
        peaks = peaks_of_calls(calls)
        times = time_calls(calls, plan=Plan(seconds=config.seconds, patience=PATIENCE))
        for name in CONTENDERS:
            block, halo = sizes(name, config.block_size)
            about = {"side": SIDE, "dim": DIM, "block": block, "halo": halo}
            about["calls"] = len(times.seconds[name])
            taken = (1e3 * value for value in times.spread(name))
            figures.append(Figure(CASE, name, mode, "time", "ms", *taken, extra=about))
            figures.append(Figure(CASE, name, mode, "memory", "MiB", peaks[name] / 2**20, extra=about))
    return figures


def _call(config: HaloBlocksConfig, name: str, mode: str) -> Callable[[], object]:
    with seeded(derive_seed(config.seed, "layers")):
        layer = attention(name, DIM, config.block_size)
        x = torch.randn(1, SIDE, SIDE, DIM)
    return _with_gradients(layer, x) if mode == BACKWARD else _forward(layer, x)


def _forward(layer: HaloAttention2d, x: Tensor) -> Callable[[], object]:
    def call() -> Tensor:
        with torch.no_grad():
            return layer(x)

    return call


def _with_gradients(layer: HaloAttention2d, x: Tensor) -> Callable[[], object]:
    x.requires_grad_()
    leaves = [x, *layer.parameters()]
    return lambda: torch.autograd.grad(layer(x).sum(), leaves)
