"""Bytes: what a layer must move at least, and what a model holds at its worst moment of inference.

A mixer or a block tells what it holds by its method `held`, for the fused kernels, which store nothing of the
size of window times map. The reference backend holds more: padded maps and one product per tap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from qna.analysis.cost import calls, is_layer
from qna.parts.protocols import HoldsMaps


@dataclass(frozen=True)
class LayerFootprint:
    """Bytes of one layer for one input.

    Attributes:
        name: where it is in the model.
        kind: its class.
        moved: bytes of input, output and parameters: each must pass the memory bus once.
        peak: bytes of all maps that live at the layer's worst moment, its input included, parameters not.
    """

    name: str
    kind: str
    moved: int
    peak: int


def layer_footprints(
    model: nn.Module, input_shape: Sequence[int], *, itemsize: int = 4
) -> list[LayerFootprint]:
    """Footprint of each layer for one input, in the order of execution; `input_shape` includes the batch."""
    found = []
    for name, layer, x, y in calls(model, input_shape, is_layer):
        weights = sum(p.numel() for p in layer.parameters())
        moved = math.prod(x) + math.prod(y) + weights
        peak = math.prod(x) + _held(layer, x, y)
        found.append(LayerFootprint(name, type(layer).__name__, itemsize * moved, itemsize * peak))
    return found


def peak_bytes(model: nn.Module, input_shape: Sequence[int], *, itemsize: int = 4) -> int:
    """Bytes of all maps at the worst moment of a model's inference, or a layer's; parameters not counted."""
    parts = calls(model, input_shape, lambda module: isinstance(module, HoldsMaps) or is_layer(module))
    return itemsize * max(math.prod(x) + _held(part, x, y) for _, part, x, y in parts)


def op_bytes_moved(
    positions: int, dim: int, score_columns: int, *, backward: bool = False, itemsize: int = 4
) -> int:
    """Bytes that learned-query attention at stride 1 must move.

    Forward: read scores and value, write the output. Backward: read them, the output and its gradient, write
    the gradients of scores and value. Tables are small.

    Args:
        positions: of all maps of the batch.
        dim: channels of the value.
        score_columns: queries times heads.
        backward: count the backward too.
        itemsize: bytes of an element.
    """
    inputs = dim + score_columns
    columns = inputs + dim + (2 * inputs + 2 * dim if backward else 0)
    return itemsize * positions * columns


def _held(part: nn.Module, x: Sequence[int], y: Sequence[int]) -> int:
    """Elements beside the input; of torch's layers, the output."""
    return part.held(x) if isinstance(part, HoldsMaps) else math.prod(y)
