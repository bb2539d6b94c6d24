"""The layer around an attention core: one projection to its maps, the core, one projection out; no biases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from qna.bench.measure.contender import Contender, Definition, Draw, Setting
from qna.bench.subjects.peers.definition import projected


def contender_of_core(
    setting: Setting,
    level: str,
    core: Callable[..., Tensor],
    definition: Definition,
    *,
    terms: int,
    maps: tuple[str, ...] = ("query", "key", "value"),
    tables: dict[str, tuple[int, ...]] | None = None,
    extra: dict[str, Any] | None = None,
) -> Contender:
    """A contender of `core`, which takes the maps (B, H, W, C) and then the tables by name.

    At level "op" the maps are leaves; at level "layer" they are projections of one map `x`.
    """
    draw = Draw(setting)
    learned = {name: draw(*shape, scale=0.5) for name, shape in (tables or {}).items()}
    extra = extra or {}
    if level == "op":
        given = {name: draw.map() for name in maps}
        leaves = {**given, **learned}
        return Contender(lambda: core(*given.values(), **learned), leaves, definition, terms, extra)
    x, dim = draw.map(), setting.dim
    w_in, w_out = draw.projection(len(maps) * dim, dim), draw.projection(dim, dim)

    def layer() -> Tensor:
        return core(*(x @ w_in.T).tensor_split(len(maps), dim=-1), **learned) @ w_out.T

    leaves = {"x": x, "w_in": w_in, "w_out": w_out, **learned}
    return Contender(layer, leaves, projected(definition, maps), terms + 2 * dim, extra)


def contender_of_mixer(
    setting: Setting, mixer: nn.Module, definition: Definition, *, terms: int
) -> Contender:
    """A contender of a mixer of the registry, held to a definition of its own.

    The leaves are the map `x` and the mixer's parameters by name, drawn anew: matrices as they keep the
    variance, what is smaller by rows with a deviation of one half.
    """
    mixer, draw = mixer.to(setting.device, setting.torch_dtype), Draw(setting)
    with torch.no_grad():
        for parameter in mixer.parameters():
            std = parameter.shape[1] ** -0.5 if parameter.ndim == 2 else 0.5
            parameter.normal_(std=std, generator=draw.generator)
    x = draw.map()
    return Contender(lambda: mixer(x), {"x": x, **dict(mixer.named_parameters())}, definition, terms)
