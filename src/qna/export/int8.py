"""Linear maps in 8 bits: ONNX Runtime's quantiser, and the same rounding in torch, which it is held to.

Weights are rounded once, with a scale per output channel; inputs as they arrive, with a scale per call
(`DynamicQuantizeLinear` of ONNX), so that the answer to an image depends a little on its batch.
"""

from __future__ import annotations

import logging
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core.errors import require


def quantise(source: Path, target: Path) -> None:
    """Write the ONNX file `source` as `target`, with every product with constant weights in 8 bits."""
    tools = require("onnxruntime.quantization", extra="export", purpose="export in 8 bits")
    logging.disable(logging.WARNING)  # it advises preparations that were made already
    try:
        tools.quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            # the trap is the default: on processors without VNNI, products of unsigned and signed bytes are
            # summed in 16 bits, which overflow; those of two unsigned ones are not
            weight_type=tools.QuantType.QUInt8,
            # products of two maps, as in self-attention, stay as they are
            extra_options={"MatMulConstBOnly": True},
        )
    finally:
        logging.disable(logging.NOTSET)


def rounded(module: nn.Module) -> nn.Module:
    """`module` with weights and inputs of every linear map rounded as `quantise` does; in place."""
    for name, part in module.named_children():
        if type(part) is nn.Linear:
            setattr(module, name, RoundedLinear(part))
        else:
            rounded(part)
    return module


class RoundedLinear(nn.Module):
    """A linear map of rounded weights and inputs, computed in the precision of its input."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        weight = linear.weight.detach()
        self.weight = nn.Parameter(in_bytes(weight, weight.amin(1, True), weight.amax(1, True)), False)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return F.linear(in_bytes(x, x.amin(), x.amax()), self.weight, self.bias)


def in_bytes(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The nearest of 256 equal steps between `low` and `high`, of which 0 is one."""
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = (high - low) / 255
    # where all is 0, whatever its scale
    scale = torch.where(scale == 0, 1, scale)
    zero = (-low / scale).round()
    return ((x / scale).round() + zero).clamp(0, 255).sub(zero) * scale
