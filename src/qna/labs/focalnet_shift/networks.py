"""FocalNets whose modulation something else takes the place of; nothing else differs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from qna._core.seeds import derive_seed, seeded
from qna.labs.focalnet_shift.config import FocalNetShiftConfig
from qna.mixers import DepthwiseConvolution2d, ShiftedWindowAttention2d, WindowAttention2d
from qna.models._parts.block import MixerBlock
from qna.models.focalnet import FocalNet, FocalNetVariant
from qna.parts.initializers import init_linear_

FOCAL, WINDOWS, CONVOLUTION = "focalnet", "shifted-windows", "convolution"
NETWORKS = (FOCAL, WINDOWS, CONVOLUTION)
HEAD_DIM = 16
# of the levels of a modulation; together they reach as far as one of CONVOLUTION_SIZE
_LEVELS = 2
CONVOLUTION_SIZE = 7


def build(name: str, config: FocalNetShiftConfig, *, channels: int, seed: int) -> FocalNet:
    """A contender for images of so many channels; what contenders share is drawn alike.

    The weights of all linear maps begin with variance 1 / channels, those of mixers too: the authors'
    deviation of 0.02 is made for networks of 96 channels and more, and products of two maps of it are small.
    """
    variant = FocalNetVariant(
        config.dim, (config.blocks,) * 2, _LEVELS, patch_size=config.patch_size, image_size=32
    )
    with seeded(derive_seed(seed, "weights")):
        network = FocalNet(variant, in_chans=channels, num_classes=10)
        blocks = [[block for block in stage if isinstance(block, MixerBlock)] for stage in network.stages]  # type: ignore[union-attr]
        mixers = {module for row in blocks for block in row for module in block.mixer.modules()}
        _begin(module for module in network.modules() if module not in mixers)
        for row in blocks:
            for number, block in enumerate(row):
                if name != FOCAL:
                    dim: Any = block.mixer.dim
                    block.mixer = _MIXERS[name](dim, number, config.window)
                _begin(block.mixer.modules())
    return network


def _begin(modules: Iterable[nn.Module]) -> None:
    for module in modules:
        if isinstance(module, nn.Linear):
            init_linear_(module)


def _attention(dim: int, number: int, window: int) -> nn.Module:
    # as in Swin, every second block's windows lie between those of the first
    kind = ShiftedWindowAttention2d if number % 2 else WindowAttention2d
    return kind(dim, num_heads=dim // HEAD_DIM, window_size=window)


def _convolution(dim: int, number: int, window: int) -> nn.Module:
    return DepthwiseConvolution2d(dim, kernel_size=CONVOLUTION_SIZE, projections=True)


_MIXERS: dict[str, Callable[[int, int, int], nn.Module]] = {WINDOWS: _attention, CONVOLUTION: _convolution}
