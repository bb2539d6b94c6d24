"""How positions move through the functions of torch that networks are made of; what has no rule is refused.

torch's own layers call these functions, so that they need no rules of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from qna.parts.reach import SAME_PLACE, Reach
from qna.tiling.calls import Call, Layout, NotLocal, same_axes_of_a_view

Found = Iterable[tuple[Tensor, Layout]]
Rule = Callable[[Call], Found]

RULES: dict[str, Rule] = {}


def _rule(names: str) -> Callable[[Rule], Rule]:
    """Enter a rule under the names of the functions that follow it."""

    def enter(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names.split(), rule))
        return rule

    return enter


def rule_of(name: str) -> Rule:
    """The rule of a function.

    Raises:
        NotLocal: there is none.
    """
    if name not in RULES:
        raise NotLocal(_WHY.get(name, "has no rule for how positions depend on each other"))
    return RULES[name]


# what the refusal of common functions says
_WHY = {
    **dict.fromkeys(
        ("group_norm", "instance_norm", "native_group_norm"), "normalises by the statistics of the whole map"
    ),
    **dict.fromkeys(
        (
            "scaled_dot_product_attention",
            "multi_head_attention_forward",
            "matmul",
            "bmm",
            "einsum",
            "baddbmm",
        ),
        "may mix any positions of the map",
    ),
    "roll": "brings one end of the map to the other",
}


@_rule(
    "abs add addcdiv addcmul alpha_dropout bfloat16 celu clamp clamp_max clamp_min clip clone "
    "contiguous cos cpu cuda detach div divide double dropout dropout1d dropout2d dropout3d elu eq "
    "erf exp expm1 feature_dropout float floor ge gelu gt half hardshrink hardsigmoid hardswish "
    "hardtanh le leaky_relu lerp log log1p logical_and logical_not logical_or logsigmoid lt "
    "masked_fill maximum minimum mish mul multiply nan_to_num ne neg negative pow reciprocal relu "
    "relu6 round rsqrt selu sigmoid sign silu sin softplus softshrink softsign sqrt square sub "
    "subtract tanh tanhshrink threshold to true_divide truediv type type_as where"
)
def pointwise(call: Call) -> Found:
    """Each position alone; other tensors must be the same for all positions."""
    found = [call.layouts[id(t)] for t in call.tensors() if id(t) in call.layouts]
    for tensor in call.tensors():
        if id(tensor) in call.layouts:
            continue
        if any(-axis <= tensor.ndim and tensor.shape[axis] != 1 for axis in found[0].axes):
            raise NotLocal(f"takes a tensor {tuple(tensor.shape)} with values of its own for each position")
    return [call.merged(found)]


@_rule("expand expand_as")
def _expansion(call: Call) -> Found:
    """What repeats along other axes; `merged` checks that the map's own keep their sizes."""
    return [call.merged([call.layouts[id(call.args[0])]])]


@_rule("batch_norm prelu")
def _per_channel(call: Call) -> Found:
    layout = call.only(call.args[0])
    return [call.kept(layout, layout.axes)]


@_rule("linear layer_norm rms_norm")
def _behind_positions(call: Call) -> Found:
    """What runs over the last axes, which must hold no positions."""
    layout = call.only(call.args[0])
    over = 1 if call.name == "linear" else len(call.bound("input normalized_shape")["normalized_shape"])
    if max(layout.axes) >= -over:
        raise NotLocal("runs over the positions of the map")
    return [call.kept(layout, layout.axes)]


@_rule("softmax log_softmax normalize glu")
def _along(call: Call) -> Found:
    """What runs over one axis and keeps it."""
    names = "input p dim" if call.name == "normalize" else "input dim"
    bound = call.bound(names)
    layout = call.only(bound["input"])
    axis = bound.get("dim", 1 if call.name == "normalize" else -1)
    if _from_end(axis, bound["input"].ndim) in layout.axes:
        raise NotLocal("runs over the positions of the map")
    return [call.kept(layout, layout.axes)]


@_rule("sum mean amax amin var std norm")
def _reduction(call: Call) -> Found:
    """What takes axes away; a mean over the map is one that can be gathered from tiles."""
    bound = call.bound("input p dim keepdim" if call.name == "norm" else "input dim keepdim")
    layout, ndim = call.only(bound["input"]), bound["input"].ndim
    dims = bound.get("dim")
    dims = range(ndim) if dims is None else (dims,) if isinstance(dims, int) else dims
    over = {_from_end(dim, ndim) for dim in dims}
    if over == set(layout.axes) and call.name == "mean":
        return [call.kept(layout, ())]
    if over & set(layout.axes):
        raise NotLocal("runs over the whole map")
    gone = () if bound.get("keepdim", False) else over
    return [call.kept(layout, [axis + sum(g > axis for g in gone) for axis in layout.axes])]


@_rule("adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d")
def _mean_over_map(call: Call) -> Found:
    bound = call.bound("input output_size")
    layout = call.only(bound["input"])
    size = bound["output_size"]
    if {size} != {1} if isinstance(size, int) else set(size) != {1}:
        raise NotLocal(f"divides the whole map into {size} parts")
    _check_channels_first(layout)
    return [call.kept(layout, ())]


@_rule("conv1d conv2d conv3d")
def _convolution(call: Call) -> Found:
    bound = call.bound("input weight bias stride padding dilation groups")
    layout = call.only(bound["input"])
    _check_channels_first(layout)
    kernel = bound["weight"].shape[2:]
    n = len(kernel)
    dilation = _each(bound.get("dilation", 1), n)
    padding = bound.get("padding", 0)
    if isinstance(padding, str):
        span = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        padding = [s // 2 if padding == "same" else 0 for s in span]
    each = zip(kernel, _each(bound.get("stride", 1), n), dilation, _each(padding, n), strict=True)
    return [call.through(layout, [Reach.of_window(k, stride=s, dilation=d, before=p) for k, s, d, p in each])]


@_rule("conv_transpose1d conv_transpose2d conv_transpose3d")
def _transposed_convolution(call: Call) -> Found:
    bound = call.bound("input weight bias stride padding output_padding groups dilation")
    layout = call.only(bound["input"])
    _check_channels_first(layout)
    kernel = bound["weight"].shape[2:]
    settings = (_each(bound.get(name, default), len(kernel)) for name, default in _TRANSPOSED)
    each = zip(kernel, *settings, strict=True)
    return [call.through(layout, [Reach(1, -(d * (k - 1) // s), 0, s, -p) for k, s, p, d in each])]


_TRANSPOSED = (("stride", 1), ("padding", 0), ("dilation", 1))


@_rule("max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d")
def _pooling(call: Call) -> Found:
    dilated = call.name.startswith("max")
    bound = call.bound("input kernel_size stride padding" + " dilation" * dilated)
    layout = call.only(bound["input"])
    _check_channels_first(layout)
    n = len(layout.axes)
    kernel = _each(bound["kernel_size"], n)
    stride = _each(bound.get("stride") or kernel, n)
    each = zip(
        kernel, stride, _each(bound.get("dilation", 1), n), _each(bound.get("padding", 0), n), strict=True
    )
    return [call.through(layout, [Reach.of_window(k, stride=s, dilation=d, before=p) for k, s, d, p in each])]


# taps below and above the place between two positions
_TAPS = {"linear": (0, 1), "bilinear": (0, 1), "trilinear": (0, 1), "bicubic": (-1, 2)}


@_rule("interpolate upsample")
def _up_sampling(call: Call) -> Found:
    bound = call.bound("input size scale_factor mode align_corners")
    layout = call.only(bound["input"])
    _check_channels_first(layout)
    if bound.get("align_corners"):
        raise NotLocal("stretches by align_corners=True, which depends on the size of the whole map")
    mode = bound.get("mode", "nearest")
    scales = bound.get("scale_factor")
    factors = []
    for i, axis in enumerate(layout.axes):
        size, made = bound["input"].shape[axis], call.result.shape[axis]
        scale = None if scales is None else scales if isinstance(scales, int | float) else scales[i]
        if made % size or scale not in (None, made // size):
            raise NotLocal(
                f"resizes {size} positions to {made}, no whole multiple: pad the image for it to become one"
            )
        factors.append(made // size)
    if mode in ("nearest", "nearest-exact"):
        return [call.through(layout, [Reach(1, 0, 0, r) for r in factors])]
    if mode not in _TAPS:
        raise NotLocal(f"resizes by mode {mode!r}")
    low, high = _TAPS[mode]
    return [call.through(layout, [SAME_PLACE if r == 1 else Reach(1, low, high, r, r // 2) for r in factors])]


@_rule("pixel_shuffle pixel_unshuffle")
def _pixel_shuffle(call: Call) -> Found:
    layout = call.only(call.args[0])
    _check_channels_first(layout)
    (factor,) = (value for name, value in call.bound("input factor").items() if name != "input")
    up = call.name == "pixel_shuffle"
    return [call.through(layout, [Reach(1, 0, 0, factor) if up else Reach(factor, 0, factor - 1)] * 2)]


@_rule("pad")
def _padding(call: Call) -> Found:
    bound = call.bound("input pad mode")
    layout = call.only(bound["input"])
    sides = {-1 - i // 2: bound["pad"][i] for i in range(0, len(bound["pad"]), 2)}
    before = [sides.get(axis, 0) for axis in layout.axes]
    if bound.get("mode", "constant") not in ("constant", "replicate"):
        raise NotLocal(f"fills the border by mode {bound['mode']!r}")
    return [call.through(layout, [Reach(1, -n, -n) for n in before])]


@_rule("cat concat concatenate")
def _concatenation(call: Call) -> Found:
    bound = call.bound("tensors dim")
    # some decoders put nothing where an encoder has no map
    parts = [part for part in bound["tensors"] if part.numel()]
    if not all(id(part) in call.layouts for part in parts):
        raise NotLocal("puts a map and what is no map side by side")
    layouts = [call.layouts[id(part)] for part in parts]
    if _from_end(bound.get("dim", 0), call.result.ndim) in layouts[0].axes:
        raise NotLocal("puts maps together along their positions")
    return [call.merged(layouts)]


@_rule("permute transpose movedim moveaxis swapaxes swapdims t unsqueeze")
def _new_order(call: Call) -> Found:
    """What only moves axes, or puts one in: seen on a tensor whose axes have sizes of their own."""
    tensor = call.args[0]
    layout = call.only(tensor)
    marked = torch.empty(tuple(range(2, 2 + tensor.ndim)), device="meta")
    moved = getattr(marked, call.name)(*call.args[1:], **call.kwargs).shape
    axes = [moved.index(marked.shape[axis]) - len(moved) for axis in layout.axes]
    return [call.kept(layout, axes)]


@_rule("view reshape flatten unflatten squeeze view_as reshape_as")
def _view(call: Call) -> Found:
    tensor = call.args[0]
    layout = call.layouts[id(tensor)]
    return [call.kept(layout, same_axes_of_a_view(tensor.shape, layout.axes, call.result.shape))]


@_rule("split chunk unbind tensor_split split_with_sizes")
def _split(call: Call) -> Found:
    names = "input dim" if call.name == "unbind" else "input into dim"
    bound = call.bound(names)
    layout = call.only(call.args[0])
    axis = _from_end(bound.get("dim", 0), call.args[0].ndim)
    if axis in layout.axes:
        raise NotLocal("cuts the map apart")
    gone = call.name == "unbind"
    axes = tuple(other + (gone and axis > other) for other in layout.axes)
    return [(part, Layout(layout.places, axes)) for part in call.result]


@_rule("getitem")
def _slices(call: Call) -> Found:
    tensor, index = call.args
    layout = call.only(tensor)
    found: dict[int, tuple[int, Reach]] = {}  # axis from the end -> where it is in the result, and how
    made = 0  # axes of the result so far
    at = 0  # axis of the tensor
    for part in _whole_index(index, tensor.ndim):
        if part is None:
            made += 1
            continue
        if at - tensor.ndim in layout.axes:
            if not isinstance(part, slice):
                raise NotLocal("takes single positions out of the map")
            start, _, step = part.indices(tensor.shape[at])
            found[at - tensor.ndim] = made, Reach(step, start, start)
        elif not isinstance(part, slice | int):
            raise NotLocal("takes what another tensor names")
        made += isinstance(part, slice)
        at += 1
    axes, reaches = zip(*(found[axis] for axis in layout.axes), strict=True)
    return [call.through(Layout(layout.places, tuple(axis - made for axis in axes)), reaches)]


def _whole_index(index: Any, ndim: int) -> list[Any]:
    """An index with one entry for each of `ndim` axes, and None for each new one."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if not any(part is Ellipsis for part in parts):
        parts.append(Ellipsis)
    at = next(i for i, part in enumerate(parts) if part is Ellipsis)
    rest = ndim - sum(part is not None and part is not Ellipsis for part in parts)
    return [*parts[:at], *[slice(None)] * rest, *parts[at + 1 :]]


def _check_channels_first(layout: Layout) -> None:
    if layout.axes != tuple(range(-len(layout.axes), 0)):
        raise NotLocal("runs over the channels as if they were positions")


def _each(value: int | Sequence[int], n: int) -> Sequence[int]:
    """One number per axis."""
    if isinstance(value, int):
        return (value,) * n
    return tuple(value) * (n if len(value) == 1 else 1)


def _from_end(axis: int, ndim: int) -> int:
    return axis if axis < 0 else axis - ndim
