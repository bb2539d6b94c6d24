"""Depthwise convolution with the same window: the registry's control, on channels-last data."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from qna.bench.measure.contender import Contender, Peer, Setting
from qna.bench.subjects.peers.definition import gather, window_keys
from qna.bench.subjects.peers.layer import contender_of_mixer
from qna.mixers import DepthwiseConvolution2d


def build(setting: Setting, level: str) -> Contender:
    """One filter per channel; zeros outside the map. At level "layer" between two projections."""
    projected = level == "layer"
    mixer = DepthwiseConvolution2d(setting.dim, kernel_size=setting.window, projections=projected)

    def definition(leaves: Mapping[str, Tensor], at: Tensor) -> Tensor:
        value = leaves["x"] @ leaves["value.weight"].T if projected else leaves["x"]
        taps = gather(value, at, window_keys(setting, at))
        y = torch.einsum("ptc,ct->pc", taps, leaves["filter.weight"].flatten(1))
        return y @ leaves["out.weight"].T if projected else y

    terms = setting.window**2 + 2 * setting.dim * projected
    return contender_of_mixer(setting, mixer, definition, terms=terms)


PEERS = (Peer("depthwise", "depthwise convolution, channels-last", build),)
