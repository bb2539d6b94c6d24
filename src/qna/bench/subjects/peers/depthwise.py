"""Depthwise convolution with the same window, through `F.conv2d` on channels-last data."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from qna.bench.measure.contender import Contender, Peer, Setting
from qna.bench.subjects.peers.definition import gather, window_keys
from qna.bench.subjects.peers.layer import contender_of_core


def build(setting: Setting, level: str) -> Contender:
    """One filter per channel; zeros outside the map."""
    k = setting.window

    def core(value: Tensor, weight: Tensor) -> Tensor:
        # an even window hangs over the end by one more than over the start
        x = value.permute(0, 3, 1, 2)
        if k % 2 == 0:
            x = F.pad(x, ((k - 1) // 2, k // 2) * 2)
        y = F.conv2d(x, weight, padding=k // 2 if k % 2 else 0, groups=setting.dim)
        return y.permute(0, 2, 3, 1)

    def definition(leaves: Mapping[str, Tensor], at: Tensor) -> Tensor:
        taps = gather(leaves["value"], at, window_keys(setting, at))
        return torch.einsum("ptc,ct->pc", taps, leaves["weight"].flatten(1))

    return contender_of_core(
        setting,
        level,
        core,
        definition,
        terms=k * k,
        maps=("value",),
        tables={"weight": (setting.dim, 1, k, k)},
    )


PEERS = (Peer("depthwise", "depthwise convolution, channels-last", build),)
