"""The linear map of every position, through whichever of torch's libraries is fast on a CPU.

In fp32 `F.linear` calls MKL, which on processors that Intel did not make takes slower kernels. oneDNN
knows no such difference, and torch reaches it with a convolution of one tap. It reads a channels-last map as
it lies, so that no copy is made either way.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from qna.parts.plain import is_plain

# below this many positions a call costs more than its product
_FEW = 128
# torch leaves smaller batches of one-tap convolutions to another library
_BATCH = 16


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`, equal to rounding: x (..., C), weight (C', C), bias (C') -> (..., C')."""
    # a traced graph would keep the sizes that it was traced at
    if torch._C._get_tracing_state() is not None:
        return F.linear(x, weight, bias)
    positions = x.numel() // max(x.shape[-1], 1)
    if not _prefers_convolution(x, weight, positions):
        return F.linear(x, weight, bias)
    image = x.reshape(_batch(positions), 1, -1, x.shape[-1]).permute(0, 3, 1, 2)
    result = F.conv2d(image, weight[:, :, None, None], bias)
    return result.permute(0, 2, 3, 1).reshape(*x.shape[:-1], len(weight))


def apply_linear(layer: nn.Module, x: Tensor) -> Tensor:
    """``layer(x)``, by `linear` where that is quicker and nobody would see the difference.

    Layers are plain `nn.Linear`, so that what other tools know by type (to quantise, adapt, prune, count) is
    what they find; the way to compute one is the choice of who calls it.

    Args:
        layer: a linear map, or what a tool has put in its place.
        x: (..., in_features).

    Returns:
        (..., out_features).
    """
    # compilers and tracers are to see the module itself
    if isinstance(x, Tensor) and not torch.compiler.is_compiling() and is_plain(layer, nn.Linear):
        return linear(x, layer.weight, layer.bias)
    return layer(x)


def _prefers_convolution(x: Tensor, weight: Tensor, positions: int) -> bool:
    return (
        # compilers plan products better than such a convolution, and exported graphs are read by others
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
        and positions >= _FEW
        and positions // _batch(positions) >= 4  # nothing to share between the rows of shorter images
        and not is_traceable_wrapper_subclass(weight)  # a quantised weight knows products alone
    )


@lru_cache(maxsize=1024)
def _batch(positions: int) -> int:
    """The smallest number of images from `_BATCH` on into which `positions` divide."""
    return next((n for n in range(_BATCH, positions // 2) if positions % n == 0), positions)
