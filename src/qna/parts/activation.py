"""The activation of a block, by our kernel where nobody would see the difference."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qna.ops import gelu
from qna.parts.plain import is_plain


def apply_gelu(layer: nn.Module, x: Tensor) -> Tensor:
    """``layer(x)`` for a GELU, or what a tool has put in its place; `qna.ops.gelu` where it is plain.

    Args:
        layer: the activation.
        x: of any shape.

    Returns:
        Of the shape of `x`.
    """
    # compilers fuse torch's own with its neighbours, exporters know it by name, and fp64 has no kernel
    if torch.compiler.is_compiling() or x.dtype == torch.float64 or not is_plain(layer, nn.GELU):
        return layer(x)
    return gelu(x, approximate=layer.approximate)
