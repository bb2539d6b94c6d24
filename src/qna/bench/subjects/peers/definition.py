"""The definitions that peers are held to: one output position at a time, by gathering its keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from qna.bench.measure.contender import Definition, Setting


def window_keys(setting: Setting, at: Tensor) -> Tensor:
    """Map coordinates (P, taps, 2) under the centred window at positions `at` (P, 3); some may be outside."""
    k = setting.window
    return _grid(at[:, 1] - (k - 1) // 2, at[:, 2] - (k - 1) // 2, (k, k))


def clamped_window_keys(setting: Setting, at: Tensor) -> Tensor:
    """As `window_keys`, with the window pushed inside the map at its borders (neighbourhood attention)."""
    (rows, columns), (height, width) = setting.kernel, setting.space
    top = (at[:, 1] - rows // 2).clamp(0, height - rows)
    left = (at[:, 2] - columns // 2).clamp(0, width - columns)
    return _grid(top, left, setting.kernel)


def inside(map_: Tensor, keys: Tensor) -> Tensor:
    """Which coordinates (..., 2) lie in the map: (...)."""
    size = torch.tensor(map_.shape[1:3], device=keys.device)
    return ((keys >= 0) & (keys < size)).all(-1)


def gather(map_: Tensor, at: Tensor, keys: Tensor) -> Tensor:
    """Values (P, taps, ...) of a map (B, H, W, ...) at the coordinates `keys` (P, taps, 2), 0 outside."""
    size = torch.tensor(map_.shape[1:3], device=keys.device)
    y, x = torch.minimum(keys.clamp(min=0), size - 1).unbind(-1)
    found = map_[at[:, :1].expand_as(y), y, x]
    shape = (*y.shape, *(1,) * (found.ndim - 2))
    return found * inside(map_, keys).view(shape)


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Softmax attention of P queries (P, h, d) over their own keys and values (P, T, h, d).

    `bias` (P, T, h) or broadcastable is added to the scaled logits; -inf masks. Returns (P, h * d).
    """
    logits = torch.einsum("phd,pthd->pth", query, key) * query.shape[-1] ** -0.5
    return torch.einsum("pth,pthd->phd", (logits + bias).softmax(1), value).flatten(1)


def projected(core: Definition, names: tuple[str, ...]) -> Definition:
    """The definition of a layer: project `x` to the maps `names`, `core` on them, then project out.

    The leaves are x, w_in (sum of widths, C) and w_out (C, C), as `layer.projected` makes them.
    """

    def define(leaves: Mapping[str, Tensor], at: Tensor) -> Tensor:
        maps = (leaves["x"] @ leaves["w_in"].T).tensor_split(len(names), dim=-1)
        attended = core({**leaves, **dict(zip(names, maps, strict=True))}, at)
        return attended @ leaves["w_out"].T

    return define


def by_heads(heads: int) -> Callable[[Tensor], Tensor]:
    """Split the channels into (heads, channels per head)."""
    return lambda t: t.unflatten(-1, (heads, -1))


def _grid(top: Tensor, left: Tensor, kernel: tuple[int, int]) -> Tensor:
    rows, columns = (torch.arange(k, device=top.device) for k in kernel)
    y = (top[:, None, None] + rows[None, :, None]).expand(-1, *kernel)
    x = (left[:, None, None] + columns[None, None, :]).expand(-1, *kernel)
    return torch.stack([y, x], -1).flatten(1, 2)
