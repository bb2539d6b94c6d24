"""Time and peak memory of linear and of softmax attention over growing maps."""

from __future__ import annotations

from functools import partial

import torch

from qna._core.seeds import seeded
from qna.bench.measure.calls import peaks_of_calls, time_calls
from qna.bench.measure.contender import FORWARD
from qna.bench.measure.harness import Plan
from qna.labs.l2vit_concentration.config import L2ViTConcentrationConfig
from qna.labs.l2vit_concentration.networks import HEAD_DIM
from qna.labs.row import Figure
from qna.mixers import FullAttention2d, LinearAttention2d

LINEAR, FULL = "linear-attention", "full-attention"
_CASE = "layer-side"
# a call that takes longer counts once
PATIENCE = 20.0


def layer_case(side: int) -> str:
    """The case of a map; `side_of` reads it back."""
    return f"{_CASE}{side}"


def side_of(case: str) -> int | None:
    """Positions per axis of the map of a case; None for other cases."""
    return int(case.removeprefix(_CASE)) if case.startswith(_CASE) else None


def measure_cost(config: L2ViTConcentrationConfig) -> list[Figure]:
    """Time and peak memory of a call in inference, map by map; the largest for linear attention alone.

    Raises:
        InvalidInput: this system does not tell peak memory.
    """
    heads = config.dim // HEAD_DIM
    with seeded(config.seed):
        layers = {
            LINEAR: LinearAttention2d(config.dim, num_heads=heads),
            FULL: FullAttention2d(config.dim, num_heads=heads, bias=True),
        }
    figures = []
    for side in (*config.sides, config.largest):
        names = (LINEAR, FULL) if side < config.largest else (LINEAR,)
        with seeded(config.seed):
            x = torch.randn(1, side, side, config.dim)
        calls = {name: partial(_call, layers[name], x) for name in names}
        peaks = peaks_of_calls(calls)
        times = time_calls(calls, plan=Plan(seconds=config.seconds, patience=PATIENCE))
        for name, layer in layers.items():
            macs = layer.macs(x.shape) / 1e6
            figures.append(Figure(layer_case(side), name, "none", "macs", "MMAC", macs))
        for name in names:
            about = {"height": side, "width": side, "dim": config.dim, "calls": len(times.seconds[name])}
            taken = (1e3 * value for value in times.spread(name))
            case = layer_case(side)
            figures.append(Figure(case, name, FORWARD, "time", "ms", *taken, extra=about))
            figures.append(Figure(case, name, FORWARD, "memory", "MiB", peaks[name] / 2**20, extra=about))
    return figures


@torch.no_grad()
def _call(layer: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    return layer(x)
