"""QnA in the paper's own form: exponentials, two depthwise convolutions of L C and L h channels, a division.

Without the stabiliser that large scores need; the authors evaluate it so (Arar et al., 2022, section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qna.bench.measure.contender import Contender, Draw, Peer, Setting
from qna.bench.subjects.peers.compiled import compiled
from qna.bench.subjects.peers.learned_query import attend_at, leaves_in


def build(setting: Setting, level: str, *, compile: bool) -> Contender:
    """The op on dense scores and values, or the layer with the authors' parameters."""
    wrap: Callable[[Any], Any] = partial(compiled, device=setting.device) if compile else lambda f: f
    extra = {"compiled": compile}
    if level == "op":
        scores, value = leaves_in(setting, "contiguous")
        shape, draw = (setting.window,) * 2 + (setting.queries, setting.heads), Draw(setting)
        leaves = {"scores": scores, "value": value, "bias": draw(*shape), "weight": draw(*shape)}
        core = wrap(two_convolutions)
        definition = partial(attend_at, setting)
        return Contender(lambda: core(**leaves), leaves, definition, setting.window**2, extra)
    leaves = layer_leaves(setting)
    layer: Any = wrap(partial(two_convolution_layer, heads=setting.heads))
    terms = setting.window**2 + 3 * setting.dim
    return Contender(lambda: layer(**leaves), leaves, partial(layer_at, setting), terms, extra)


def two_convolutions(scores: Tensor, value: Tensor, bias: Tensor, weight: Tensor) -> Tensor:
    """(B, H, W, L, h), (B, H, W, h, d) and tables (k, k, L, h) -> (B, H, W, h, d)."""
    queries, heads, d = *scores.shape[-2:], value.shape[-1]
    e = scores.exp()
    expanded = e.unsqueeze(-1) * value.unsqueeze(-3)
    static = bias.exp()
    kernel = (static * weight).repeat_interleave(d, dim=-1).flatten(2)
    top = _convolve(expanded.flatten(3), kernel).unflatten(-1, (queries, heads, d))
    total = _convolve(e.flatten(3), static.flatten(2)).unflatten(-1, (queries, heads, 1))
    return (top / total).sum(-3)


def layer_leaves(setting: Setting) -> dict[str, Tensor]:
    """A map and the parameters of the authors' layer, by their meaning; projections are (into, out)."""
    s, draw = setting, Draw(setting)
    x = draw.map()
    table = (s.window, s.window, s.queries, s.heads)
    return {
        "x": x,
        "query": draw(s.queries, s.dim),
        "key": draw.projection(s.dim, s.dim),
        "value": draw.projection(s.dim, s.dim),
        "bias": draw(*table, scale=0.5),
        "weight": draw(*table, scale=0.5),
        "out": draw.projection(s.dim, s.dim),
    }


def two_convolution_layer(
    *,
    x: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    weight: Tensor,
    out: Tensor,
    heads: int,
) -> Tensor:
    """Scores x (W_k q) without keys, values, the two convolutions, the output projection."""
    q = _unit(query.unflatten(-1, (heads, -1)))
    folded = torch.einsum("lhd,chd->clh", q, key.unflatten(-1, (heads, -1)))
    scores = (x @ folded.flatten(1)).unflatten(-1, folded.shape[1:])
    values = (x @ value).unflatten(-1, (heads, -1))
    return two_convolutions(scores, values, bias, weight).flatten(-2) @ out


def layer_at(setting: Setting, leaves: Mapping[str, Tensor], at: Tensor) -> Tensor:
    """The layer's definition (P, C): with keys, a softmax and no convolution."""
    s, x = setting, leaves["x"]
    split = partial(Tensor.unflatten, dim=-1, sizes=(s.heads, -1))
    keys = split(x @ leaves["key"])
    core = {
        "scores": torch.einsum("bxyhd,lhd->bxylh", keys, _unit(split(leaves["query"]))),
        "value": split(x @ leaves["value"]),
        "bias": leaves["bias"],
        "weight": leaves["weight"],
    }
    return attend_at(s, core, at).flatten(1) @ leaves["out"]


def _unit(query: Tensor) -> Tensor:
    return query / (query.norm(dim=-1, keepdim=True) + 1e-6) * query.shape[-1] ** -0.5


def _convolve(x: Tensor, kernel: Tensor) -> Tensor:
    """Depthwise convolution of (B, H, W, C) by (k, k, C); zeros outside add nothing to either sum."""
    weight = kernel.permute(2, 0, 1).unsqueeze(1)
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, padding=kernel.shape[0] // 2, groups=x.shape[-1])
    return y.permute(0, 2, 3, 1)


def declines(setting: Setting, level: str, mode: str) -> str | None:
    """Even windows, which symmetric padding cannot centre."""
    return f"symmetric padding wants an odd window, got {setting.window}" if setting.window % 2 == 0 else None


PEERS = (
    Peer("two-conv", "QnA, the paper's two convolutions, eager", partial(build, compile=False), declines),
    Peer("two-conv-compiled", "the same under torch.compile", partial(build, compile=True), declines),
)
