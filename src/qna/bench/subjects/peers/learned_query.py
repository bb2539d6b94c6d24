"""Learned-query attention, this library's own, by backend and by layout."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from qna._core.backends import Backend
from qna.bench.measure.contender import Contender, Draw, Peer, Setting
from qna.bench.subjects.ops import LEARNED_QUERY, op_inputs, op_row
from qna.bench.subjects.peers.definition import gather, inside, window_keys
from qna.mixers import QnA2d
from qna.ops import learned_query_attention


def build(setting: Setting, level: str, *, backend: str | None, layout: str) -> Contender:
    """The op on scores and values, or the layer `QnA2d`."""
    chosen = backend or fastest(setting)
    extra: dict[str, Any] = {"backend": chosen, "layout": layout}
    if level == "layer":
        return _layer(setting, chosen, extra)
    scores, value = leaves_in(setting, layout)
    draw = Draw(setting)
    shape = (setting.window, setting.window, setting.queries, setting.heads)
    leaves = {"scores": scores, "value": value, "bias": draw(*shape), "weight": draw(*shape)}
    forward = partial(learned_query_attention, **leaves, backend=chosen)
    return Contender(forward, leaves, partial(attend_at, setting), setting.window**2, extra)


def leaves_in(setting: Setting, layout: str) -> tuple[Tensor, Tensor]:
    """Leaves: scores (B, H, W, L, h) and value (B, H, W, h, d).

    In layout "layer" they are views of one buffer (B, H, W, d * h + L * h), as the layers' projection makes
    them: values first, heads fastest. In layout "contiguous" each is a dense tensor of its shape.
    """
    s, draw = setting, Draw(setting)
    buffer = draw.map(s.dim + s.queries * s.heads).detach()
    value, scores = buffer.tensor_split([s.dim], dim=-1)
    scores = scores.unflatten(-1, (s.queries, s.heads))
    value = value.unflatten(-1, (-1, s.heads)).transpose(-1, -2)
    if layout == "contiguous":
        scores, value = scores.contiguous(), value.contiguous()
    return scores.requires_grad_(), value.requires_grad_()


def attend_at(setting: Setting, leaves: Mapping[str, Tensor], at: Tensor) -> Tensor:
    """The op's definition (P, h, d) at positions `at`: a softmax over the taps inside the map."""
    keys = window_keys(setting, at)
    scores, value = gather(leaves["scores"], at, keys), gather(leaves["value"], at, keys)
    logits = scores + leaves["bias"].flatten(0, 1)
    logits = logits.masked_fill(~inside(leaves["value"], keys)[..., None, None], float("-inf"))
    share = logits.softmax(1) * leaves["weight"].flatten(0, 1)
    return torch.einsum("ptlh,pthd->phd", share, value)


def fastest(setting: Setting) -> str:
    """The backend that the dispatch would take."""
    return next(b.name for b in op_row(LEARNED_QUERY).backends if not _reasons(b, setting))


def declines(setting: Setting, level: str, mode: str, *, backend: str) -> str | None:
    """What the backend itself says."""
    for candidate in op_row(LEARNED_QUERY).backends:
        if candidate.name == backend:
            return "; ".join(_reasons(candidate, setting)) or None
    return f"this version has no backend {backend!r}"


def _reasons(backend: Backend, setting: Setting) -> list[str]:
    """Asked with tensors without storage, so that a large map costs nothing."""
    s, kernel = setting, (setting.window,) * 2
    make = partial(torch.empty, dtype=s.torch_dtype, device=s.device)
    # one image tells what all would
    scores = make(1, *s.space, s.queries, s.heads)
    value = make(1, *s.space, s.heads, s.dim // s.heads)
    table = make(*kernel, s.queries, s.heads)
    return backend.reasons(op_inputs(scores, value, table, table))


def _layer(setting: Setting, backend: str, extra: dict[str, Any]) -> Contender:
    s, draw = setting, Draw(setting)
    layer = QnA2d(
        s.dim, num_heads=s.heads, kernel_size=s.window, num_queries=s.queries, backend=backend
    )  # fmt: skip
    layer = layer.to(s.device, s.torch_dtype)
    with torch.no_grad():
        # the tables start at zero, which would hide their part
        for name, p in layer.named_parameters():
            if name.endswith("table"):
                p.normal_(std=0.5, generator=draw.generator)
    x = draw.map()
    leaves = {"x": x, **dict(layer.named_parameters())}
    terms = s.window**2 + 3 * s.dim
    return Contender(lambda: layer(x), leaves, partial(_layer_at, setting), terms, extra)


def _layer_at(setting: Setting, leaves: Mapping[str, Tensor], at: Tensor) -> Tensor:
    """The layer's definition: keys and their products with the normalised queries, written out."""
    s, x, query = setting, leaves["x"], leaves["project.query"]
    query = query / (query.norm(dim=-1, keepdim=True) + 1e-6) * query.shape[-1] ** -0.5
    keys = torch.einsum("bxyc,hdc->bxyhd", x, leaves["project.key"])
    shape = (s.window, s.window, s.queries, s.heads)
    tables = [name for name in leaves if name.endswith("table")]
    bias = next(n for n in tables if "position" in n)
    weight = next(n for n in tables if n != bias)
    core = {
        "scores": torch.einsum("bxyhd,lhd->bxylh", keys, query),
        # heads are the fastest axis of the value's channels
        "value": (x @ leaves["project.value.weight"].T).unflatten(-1, (-1, s.heads)).transpose(-1, -2),
        "bias": leaves[bias].view(shape),
        "weight": leaves[weight].view(shape),
    }
    return attend_at(s, core, at).transpose(-1, -2).flatten(1) @ leaves["out.weight"].T


def _no_other_layout(setting: Setting, level: str, mode: str) -> str | None:
    if level == "layer":
        return "a layer has one layout"
    if fastest(setting) == "reference":
        return "qna runs the reference here, which treats all layouts alike"
    return None


PEERS = (
    Peer("qna", "QnA, this library", partial(build, backend=None, layout="layer"), op=LEARNED_QUERY),
    Peer(
        "qna-contiguous",
        "QnA on dense (h, d) values",
        partial(build, backend=None, layout="contiguous"),
        _no_other_layout,
        op=LEARNED_QUERY,
    ),
    *(
        Peer(
            f"qna-{b.name}",
            f"QnA, backend {b.name}",
            partial(build, backend=b.name, layout="layer"),
            partial(declines, backend=b.name),
            of_all=False,
            op=LEARNED_QUERY,
        )
        for b in op_row(LEARNED_QUERY).backends
    ),
)
