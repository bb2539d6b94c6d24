"""Multiply-adds of layers and models, in the paper's accounting.

The published "GFLOPs" of QnA-ViT are multiply-adds (MACs). For a QnA layer they count the method as the paper
evaluates it: scores, values, the product of each value with L exponentials, one depth-wise convolution of
L * C channels for the numerator and one of L * h for the denominator, and the output projection. Kernels that
evaluate the same sums with less work are not credited for it, so that the figure belongs to the layer and not
to its backend. Norms, activations, softmax and additions are not counted.
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
from qna.mixers.learned_query.projection import QueryKeyValue
from qna.ops import use_backend


@dataclass(frozen=True)
class LayerCost:
    """Multiply-adds of one layer.

    Attributes:
        name: where it is in the model.
        kind: its class.
        input: shape of its input.
        macs: multiply-adds for that input.
    """

    name: str
    kind: str
    input: tuple[int, ...]
    macs: int


def layer_costs(model: nn.Module, input_shape: Sequence[int]) -> list[LayerCost]:
    """Cost of each layer that multiplies, for one input, in the order of execution.

    Runs a copy without data, so that it takes no memory for the maps. `input_shape` includes the batch.
    """
    found: list[LayerCost] = []
    ghost = copy.deepcopy(model).to("meta").eval()
    for name, module, rule in _counted(ghost):

        def note(
            module: nn.Module, inputs: tuple[Tensor], output: Tensor, name: str = name, rule: Any = rule
        ):
            macs = rule(module, inputs[0].shape, output.shape)
            found.append(LayerCost(name, type(module).__name__, tuple(inputs[0].shape), macs))

        module.register_forward_hook(note)
    with torch.no_grad(), use_backend("reference"):
        ghost(torch.empty(*input_shape, device="meta"))
    return found


def total_macs(model: nn.Module, input_shape: Sequence[int]) -> int:
    """Multiply-adds of a model, or of one layer, for one input; `input_shape` includes the batch."""
    return sum(layer.macs for layer in layer_costs(model, input_shape))


def qna_macs(layer: QnA, x: Sequence[int], y: Sequence[int]) -> int:
    """MACs of a QnA layer from a map `x` = (B, *space, C) to `y` = (B, *space', C')."""
    n, n_out = math.prod(x[:-1]), math.prod(y[:-1])
    C, inner, taps = x[-1], y[-1], math.prod(layer.kernel_size)
    Lh, LC = layer.num_queries * layer.num_heads, layer.num_queries * inner
    projections = n * C * (inner + Lh) + n_out * inner * inner
    windows = n * LC + n_out * taps * (LC + Lh)
    return projections + windows + _query_macs(layer.project)


def pool_macs(layer: QnAPool2d, x: Sequence[int], y: Sequence[int]) -> int:
    """MACs of a pooling from a map `x` = (B, H, W, C) to `y` = (B, C'): a QnA layer with one window."""
    n, batch, inner = math.prod(x[:-1]), x[0], y[-1]
    Lh, LC = layer.num_queries * layer.num_heads, layer.num_queries * inner
    projections = n * x[-1] * (inner + Lh) + batch * inner * inner
    return projections + n * LC + n * (LC + Lh) + _query_macs(layer.project)


def window_attention_macs(layer: WindowAttention2d, x: Sequence[int], y: Sequence[int]) -> int:
    """MACs of self-attention in windows, with the positions that pad a map up to whole windows."""
    batch, height, width, C = x
    rows, columns = min(layer.window_size[0], height), min(layer.window_size[1], width)
    padded = -(-height // rows) * rows * (-(-width // columns) * columns)
    return batch * (4 * height * width * C * C + 2 * padded * rows * columns * C)


def linear_macs(layer: nn.Linear, x: Sequence[int], y: Sequence[int]) -> int:
    """MACs of a linear layer."""
    return math.prod(x[:-1]) * layer.in_features * layer.out_features


def conv_macs(layer: nn.Conv2d, x: Sequence[int], y: Sequence[int]) -> int:
    """MACs of a convolution."""
    return math.prod(y) * layer.weight[0].numel()


RULES: dict[type[nn.Module], Callable[[Any, Sequence[int], Sequence[int]], int]] = {
    QnA: qna_macs,
    QnAPool2d: pool_macs,
    WindowAttention2d: window_attention_macs,
    nn.Linear: linear_macs,
    nn.Conv2d: conv_macs,
}


def _query_macs(project: nn.Module) -> int:
    """W_k q, formed once per call; nothing after `fuse`."""
    if not isinstance(project, QueryKeyValue):
        return 0
    return project.query.shape[0] * project.key.numel()


def _counted(module: nn.Module, name: str = ""):
    """(name, module, rule) of the outermost modules that have a rule."""
    for kind, rule in RULES.items():
        if isinstance(module, kind):
            yield name, module, rule
            return
    for child_name, child in module.named_children():
        yield from _counted(child, f"{name}.{child_name}".lstrip("."))
