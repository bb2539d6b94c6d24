"""Mixers of the registry as peers of whole layers, by their class names; nothing is written for any of them.

No definition is written either: a mixer is held to a copy of itself in fp64 on the reference backends.
That proves that its dtype and its kernels agree with them, on outputs and gradients, and nothing else; that
a mixer computes what its paper says is shown by its own tests.

A mixer of sequences takes a map of one row, one of volumes takes the images of a batch as the planes of a
volume.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from qna._core.backends import use_backend
from qna._core.errors import InvalidInput
from qna.bench.measure.contender import Contender, Draw, Peer, Setting
from qna.bench.measure.gate import pick
from qna.mixers import MIXERS

HELD_TO = "its own copy in fp64: the gate proves agreement of dtypes and backends only"
# what mixers call the taps of their window
WINDOWS = ("kernel_size", "window_size")
# how a row's example may have its windows lie, and they do not here
PLAIN = {"dilation": 1, "stride": 1, "is_causal": False}
# queries per axis of a block with a halo
BLOCK = 8


def build(setting: Setting, level: str, *, name: str) -> Contender:
    """The mixer with the setting's window, heads and queries, where it takes them; half a window as halo."""
    layer = _mixer(setting, name).to(setting.device, setting.torch_dtype).eval()
    draw = Draw(setting)
    with torch.no_grad():
        for p in layer.parameters():
            # tables and gammas start at one value, which would hide their part
            if bool((p == p.flatten()[0]).all()):
                p.add_(torch.empty_like(p).normal_(std=0.5, generator=draw.generator))
            elif p.ndim > 1:
                # as keeps the variance: outputs near zero would hide a fault below what rounding allows
                p.normal_(std=(p.numel() // p.shape[0]) ** -0.5, generator=draw.generator)
    x = draw.map()
    weights = [p for p in layer.parameters() if p.ndim > 1]
    # what has no linear map sums over positions instead, as products of channels do
    summed = sum(p.numel() // p.shape[0] for p in weights) or prod(setting.space)
    terms = setting.window**2 + summed
    exact = copy.deepcopy(layer).double()
    extra = {"held_to": HELD_TO, "arguments": _arguments(setting, name)}
    leaves = {"x": x, **dict(layer.named_parameters())}
    return Contender(lambda: _called(layer, name, x), leaves, partial(_at, exact, name), terms, extra)


def _at(exact: nn.Module, mixer: str, leaves: Mapping[str, Tensor], at: Tensor) -> Tensor:
    parameters = {name: t for name, t in leaves.items() if name != "x"}
    with use_backend("reference"):
        return pick(_called(partial(torch.func.functional_call, exact, parameters), mixer, leaves["x"]), at)


def _called(layer: Callable[[Tensor], Tensor], name: str, x: Tensor) -> Tensor:
    """What a mixer makes of a map (B, H, W, C), in the same form."""
    axes = _axes(name)
    if axes == 1:
        return layer(x.squeeze(1)).unsqueeze(1)
    return layer(x) if axes == 2 else layer(x.unsqueeze(0)).squeeze(0)


def declines(setting: Setting, level: str, mode: str, *, name: str) -> str | None:
    """The level of ops, and what the mixer itself says, which is asked without storage."""
    if level != "layer":
        return "a whole layer: see `qna bench layer`"
    if _axes(name) == 1 and setting.height != 1:
        return f"mixes sequences: wants maps of one row, got {setting.height}"
    try:
        with torch.device("meta"):
            _called(_mixer(setting, name), name, torch.empty(1, *setting.space, setting.dim))
    except InvalidInput as error:
        return str(error)
    return None


def _mixer(setting: Setting, name: str) -> nn.Module:
    return MIXERS[name].build(setting.dim, **_arguments(setting, name))


def _arguments(setting: Setting, name: str) -> dict[str, Any]:
    """Those of the row's example, and in their place the setting's, of what the class takes."""
    takes = inspect.signature(MIXERS[name].build).parameters
    # heads of learned queries as the setting says; of a query per position as their papers do
    heads = setting.heads if "num_queries" in takes else setting.attention_heads
    multiple = getattr(MIXERS[name].build, "heads_multiple", 1)
    heads = -(-heads // multiple) * multiple
    given = {"num_heads": heads, "num_queries": setting.queries, **dict.fromkeys(WINDOWS, setting.window)}
    # groups that share keys: as many heads of keys, whatever number of heads there is
    given["kv_heads"] = heads
    given |= {"block_size": BLOCK, "halo_size": setting.window // 2}
    # of what takes maps of one size alone
    given |= {"map_size": setting.space}
    example = {k: PLAIN.get(k, v) for k, v in _example(name).arguments.items()}
    return {**example, **{k: v for k, v in given.items() if k in takes}}


def _example(name: str) -> Any:
    """The small way to build a mixer: a field of its row, in older versions the row itself."""
    row: Any = MIXERS[name]
    return getattr(row, "example", row)


def _axes(name: str) -> int:
    """Space axes of the maps that the mixer takes."""
    return len(_example(name).space)


def peer_of(name: str) -> Peer:
    """The mixer `name` as a peer."""
    return Peer(
        name, f"{name} of the registry", partial(build, name=name), partial(declines, name=name), of_all=False
    )


PEERS = tuple(peer_of(name) for name in MIXERS if _example(name).out_space is None)
