"""The linear map of every position, through whichever of torch's libraries is fast on a CPU.

`product_routes` knows which that is. Where the processor has no arithmetic of 16 bits, torch computes halves
several times slower than single precision; products of halves are then taken in single precision.
"""

from __future__ import annotations

from functools import cache, lru_cache

import torch
import torch.autograd.forward_ad as fwAD
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from qna._core.processor import this_processor
from qna.parts import product_routes
from qna.parts.plain import is_plain
from qna.parts.product_routes import INFERENCE, INNER_PRODUCT, LINEAR, TRAINING

# below this many positions a call costs more than its product
_FEW = 128
# torch leaves smaller batches of one-tap convolutions to another library
_BATCH = 16
_HALVES = {torch.bfloat16: {"avx512_bf16", "amx_bf16"}, torch.float16: {"avx512_fp16", "amx_fp16"}}


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`, equal to rounding: x (..., C), weight (C', C), bias (C') -> (..., C')."""
    if not _may_choose(x, weight, bias):
        return F.linear(x, weight, bias)
    autocast = torch.is_autocast_enabled("cpu") and x.dtype != torch.float64 != weight.dtype
    if not autocast and x.dtype != weight.dtype:
        return F.linear(x, weight, bias)
    dtype = torch.get_autocast_dtype("cpu") if autocast else x.dtype
    if _is_slow(dtype):
        with torch.autocast("cpu", enabled=False):
            single = (t if t is None else t.float() for t in (x, weight, bias))
            return linear(*single).to(dtype)  # pyright: ignore[reportArgumentType]
    if dtype != torch.float32:
        return F.linear(x, weight, bias)
    return take(_route(x, weight, bias), x, weight, bias)


def take(route: str, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`linear` in fp32 by the route that is named, as far as it takes these sizes."""
    if route == INNER_PRODUCT:
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    positions = x.numel() // max(x.shape[-1], 1)
    # nothing to share between the rows of shorter images
    if route == LINEAR or positions < _FEW or positions // _batch(positions) < 4:
        return F.linear(x, weight, bias)
    # a channels-last map as it lies, so that no copy is made either way
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


def _may_choose(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    return (
        # compilers plan products themselves, and exported graphs are read by others; a traced one would keep
        # the sizes that it was traced at
        not torch.compiler.is_compiling()
        and torch._C._get_tracing_state() is None
        and x.device.type == "cpu"
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        # a quantised weight knows products alone
        and not any(is_traceable_wrapper_subclass(t) for t in (x, weight, bias) if t is not None)
    )


def _route(x: Tensor, weight: Tensor, bias: Tensor | None) -> str:
    positions = x.numel() // max(x.shape[-1], 1)
    if positions < _FEW or not weight.numel():
        return LINEAR
    with_gradient = torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in (x, weight, bias)
    )
    mode = TRAINING if with_gradient else INFERENCE
    route = product_routes.route(positions, x.shape[-1], len(weight), mode)
    if route == INNER_PRODUCT and (with_gradient or _is_watched()):
        return LINEAR
    return route


def _is_watched() -> bool:
    """Whether calls of aten are seen by a mode (counters, fake tensors) or a transform (vmap, jvp).

    The inner product is an op that they do not know.
    """
    return (
        torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None  # pyright: ignore[reportAttributeAccessIssue]
        or fwAD._current_level >= 0
    )


@cache
def _is_slow(dtype: torch.dtype) -> bool:
    """Whether a processor that tells what it can do lacks products of this dtype."""
    flags = this_processor().flags
    return bool(flags) and dtype in _HALVES and not _HALVES[dtype] & flags


@lru_cache(maxsize=1024)
def _batch(positions: int) -> int:
    """The smallest number of images from `_BATCH` on into which `positions` divide."""
    return next((n for n in range(_BATCH, positions // 2) if positions % n == 0), positions)
