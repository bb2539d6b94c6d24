"""Bytes: what a layer must move at least, and what a model holds at its worst moment of inference.

Formulas for the fused kernels, which store nothing of the size of window times map. The reference backend
holds more: padded maps and one product per tap.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qna.mixers import QnAPool2d, WindowAttention2d
from qna.mixers.learned_query import QnA
from qna.models._parts.block import MixerBlock
from qna.ops import use_backend


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
    for name, module, x, y in _calls(model, input_shape, HELD):
        weights = sum(p.numel() for p in module.parameters())
        moved = math.prod(x) + math.prod(y) + weights
        peak = math.prod(x) + held(module, x, y)
        found.append(LayerFootprint(name, type(module).__name__, itemsize * moved, itemsize * peak))
    return found


def peak_bytes(model: nn.Module, input_shape: Sequence[int], *, itemsize: int = 4) -> int:
    """Bytes of all maps at the worst moment of a model's inference, or a layer's; parameters not counted."""
    calls = _calls(model, input_shape, {MixerBlock: _block_held, **HELD})
    return itemsize * max(math.prod(x) + held(module, x, y) for _, module, x, y in calls)


def held(module: nn.Module, x: Sequence[int], y: Sequence[int]) -> int:
    """Elements that live beside the input at the worst moment of a call from shape `x` to shape `y`."""
    if isinstance(module, MixerBlock):
        return _block_held(module, x, y)
    return next(rule for kind, rule in HELD.items() if isinstance(module, kind))(module, x, y)


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


def _output_only(module: nn.Module, x: Sequence[int], y: Sequence[int]) -> int:
    return math.prod(y)


def _qna_held(layer: QnA, x: Sequence[int], y: Sequence[int]) -> int:
    """What was attended, beside the values and scores that it came from, or beside the output."""
    n, n_out, inner = math.prod(x[:-1]), math.prod(y[:-1]), y[-1]
    return n_out * inner + max(n * (inner + layer.num_queries * layer.num_heads), n_out * inner)


def _pool_held(layer: QnAPool2d, x: Sequence[int], y: Sequence[int]) -> int:
    n = math.prod(x[:-1])
    return n * (y[-1] + layer.num_queries * layer.num_heads) + 2 * math.prod(y)


def _window_attention_held(layer: WindowAttention2d, x: Sequence[int], y: Sequence[int]) -> int:
    """Queries, keys and values twice, while they are brought into windows."""
    batch, height, width, C = x
    rows, columns = min(layer.window_size[0], height), min(layer.window_size[1], width)
    padded = -(-height // rows) * rows * (-(-width // columns) * columns)
    return 6 * batch * padded * C


HELD: dict[type[nn.Module], Callable[[Any, Sequence[int], Sequence[int]], int]] = {
    QnA: _qna_held,
    QnAPool2d: _pool_held,
    WindowAttention2d: _window_attention_held,
    nn.Linear: _output_only,
    nn.Conv2d: _output_only,
}


def _block_held(block: MixerBlock, x: Sequence[int], y: Sequence[int]) -> int:
    """While the mixer runs: its normalised input, and what the skip path made. In the MLP: the map, its
    normalised form, and the hidden channels before and after the activation."""
    before, after = math.prod(x), math.prod(y)
    skip = 0 if isinstance(block.shortcut, nn.Identity) else after
    hidden = after // y[-1] * block.mlp.fc1.out_features
    return max(skip + before + held(block.mixer, x, y), 2 * after + 2 * hidden)


def _calls(
    model: nn.Module, input_shape: Sequence[int], kinds: dict[type[nn.Module], Any]
) -> list[tuple[str, nn.Module, tuple[int, ...], tuple[int, ...]]]:
    """(name, module, input shape, output shape) of the outermost modules of `kinds`, as they are called.

    Runs a copy without data.
    """
    found: list[tuple[str, nn.Module, tuple[int, ...], tuple[int, ...]]] = []
    ghost = copy.deepcopy(model).to("meta").eval()
    for name, module in _outermost(ghost, tuple(kinds)):

        def note(module: nn.Module, inputs: tuple[Tensor], output: Tensor, name: str = name) -> None:
            found.append((name, module, tuple(inputs[0].shape), tuple(output.shape)))

        module.register_forward_hook(note)
    with torch.no_grad(), use_backend("reference"):
        ghost(torch.empty(*input_shape, device="meta"))
    return found


def _outermost(module: nn.Module, kinds: tuple[type[nn.Module], ...], name: str = ""):
    """(name, module) of the outermost modules of `kinds`."""
    if isinstance(module, kinds):
        yield name, module
        return
    for child_name, child in module.named_children():
        yield from _outermost(child, kinds, f"{name}.{child_name}".lstrip("."))
