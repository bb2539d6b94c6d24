"""Multiply-adds of layers and models, in the paper's accounting.

The published "GFLOPs" of vision models are multiply-adds (MACs). A mixer tells its own by its method `macs`;
the rules of torch's layers stand here. A figure belongs to the layer and not to its backend. Norms,
activations, softmax and additions are not counted.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qna.ops import use_backend
from qna.parts.protocols import CountsMacs, GatesHeads


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
    return [
        LayerCost(name, type(layer).__name__, x, _macs(layer, x, y))
        for name, layer, x, y in calls(model, input_shape, is_layer)
    ]


def total_macs(model: nn.Module, input_shape: Sequence[int]) -> int:
    """Multiply-adds of a model, or of one layer, for one input; `input_shape` includes the batch."""
    return sum(layer.macs for layer in layer_costs(model, input_shape))


def is_layer(module: nn.Module) -> bool:
    """Whether the module's multiply-adds are known: it tells them, or is one of torch's in `RULES`."""
    return isinstance(module, CountsMacs) or any(isinstance(module, kind) for kind in RULES)


def tells_costs(model: nn.Module) -> bool:
    """Whether the model is made of this library's layers: some part of it tells its multiply-adds."""
    return any(isinstance(module, CountsMacs) for module in model.modules())


def calls(
    model: nn.Module, input_shape: Sequence[int], wanted: Callable[[nn.Module], bool]
) -> list[tuple[str, nn.Module, tuple[int, ...], tuple[int, ...]]]:
    """(name, module, input shape, output shape) of the outermost `wanted` modules, as they are called.

    Runs a copy without data; `input_shape` includes the batch.
    """
    found: list[tuple[str, nn.Module, tuple[int, ...], tuple[int, ...]]] = []
    ghost = copy.deepcopy(model).to("meta").eval()
    for name, module in _outermost(ghost, wanted):

        def note(module: nn.Module, inputs: tuple[Tensor], output: Tensor, name: str = name) -> None:
            found.append((name, module, tuple(inputs[0].shape), tuple(output.shape)))

        module.register_forward_hook(note)
    with torch.no_grad(), use_backend("reference"):
        ghost(torch.empty(*input_shape, device="meta"))
    return found


def linear_macs(layer: nn.Linear, x: Sequence[int], y: Sequence[int]) -> int:
    """MACs of a linear layer."""
    return math.prod(x[:-1]) * layer.in_features * layer.out_features


def conv_macs(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, x: Sequence[int], y: Sequence[int]) -> int:
    """MACs of a convolution, grouped or not."""
    return math.prod(y) * layer.weight[0].numel()


# torch's layers; what they cost from a map of shape `x` to one of shape `y`
RULES: dict[type[nn.Module], Callable[[Any, Sequence[int], Sequence[int]], int]] = {
    nn.Linear: linear_macs,
    nn.Conv1d: conv_macs,
    nn.Conv2d: conv_macs,
    nn.Conv3d: conv_macs,
}


def _macs(layer: nn.Module, x: Sequence[int], y: Sequence[int]) -> int:
    if isinstance(layer, CountsMacs):
        gate = layer.head_gate if isinstance(layer, GatesHeads) else None
        return layer.macs(x) + (gate.macs(x) if isinstance(gate, CountsMacs) else 0)
    return next(rule for kind, rule in RULES.items() if isinstance(layer, kind))(layer, x, y)


def _outermost(
    module: nn.Module, wanted: Callable[[nn.Module], bool], name: str = ""
) -> Iterator[tuple[str, nn.Module]]:
    if wanted(module):
        yield name, module
        return
    for child_name, child in module.named_children():
        yield from _outermost(child, wanted, f"{name}.{child_name}".lstrip("."))
