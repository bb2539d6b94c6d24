"""Neighbourhood attention (Hassani et al., CVPR 2023): windows that move, pushed inside at the borders.

`neighbourhood` is the `natten` package on a GPU where it is installed; else torch's FlexAttention, compiled,
with the neighbourhood as its mask. `natten` is that package on any device: on a CPU it runs FlexAttention
uncompiled, which forms all scores. `neighbourhood-unfold` copies the keys and values of every window.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from qna.bench.measure.contender import BACKWARD, Contender, Peer, Setting
from qna.bench.measure.gate import pick
from qna.bench.subjects.peers.compiled import compiled
from qna.bench.subjects.peers.definition import attend, by_heads, clamped_window_keys, gather
from qna.bench.subjects.peers.layer import contender_of_core
from qna.bench.subjects.peers.memory_room import refuse_above_memory

LEAST_HEAD_DIM = 16  # of FlexAttention's kernels on GPUs
TILE = 8  # tokens are ordered tile by tile, so that a block of the mask holds a square of the map


def build(setting: Setting, level: str) -> Contender:
    """Each position attends the window around it, which holds `window`^2 positions everywhere."""
    natten = setting.device != "cpu" and _has_natten()
    core = _natten_core(setting) if natten else _flex_core(setting)
    return _contender(setting, level, core, "natten" if natten else "FlexAttention")


def build_natten(setting: Setting, level: str) -> Contender:
    """The same by the `natten` package."""
    return _contender(setting, level, _natten_core(setting), "natten")


def build_unfolded(setting: Setting, level: str) -> Contender:
    """The same in eager torch, keys and values of each window copied beside one another."""
    return _contender(setting, level, _unfolded_core(setting), "unfold")


def _contender(setting: Setting, level: str, core: Callable[..., Tensor], by: str) -> Contender:
    split = by_heads(setting.attention_heads)

    def definition(leaves: Mapping[str, Tensor], at: Tensor) -> Tensor:
        keys = clamped_window_keys(setting, at)
        key, value = (split(gather(leaves[name], at, keys)) for name in ("key", "value"))
        query = split(pick(leaves["query"], at))
        return attend(query, key, value, query.new_zeros(()))

    terms = prod(setting.kernel) + setting.dim // setting.attention_heads
    extra = {"by": by, "heads": setting.attention_heads}
    return contender_of_core(setting, level, core, definition, terms=terms, extra=extra)


def declines(setting: Setting, level: str, mode: str) -> str | None:
    """Maps that the tiles do not divide, windows larger than the map, and the missing CPU backward."""
    if min(setting.space) < setting.window or setting.window % 2 == 0:
        return f"wants odd windows inside the map, got {setting.window} and {setting.space}"
    if setting.height % TILE or setting.width % TILE:
        return f"FlexAttention's mask is tiled by {TILE}, which does not divide the map {setting.space}"
    head_dim = setting.dim // setting.attention_heads
    if setting.device != "cpu" and not _has_natten() and head_dim < LEAST_HEAD_DIM:
        return f"FlexAttention wants heads of {LEAST_HEAD_DIM} channels at least on a GPU, got {head_dim}"
    if setting.device == "cpu" and mode == BACKWARD:
        return "FlexAttention has no backward on CPU, and natten has no CPU kernel"
    return None


def declines_natten(setting: Setting, level: str, mode: str) -> str | None:
    """Where the package is not installed, windows larger than the map, and the missing CPU backward."""
    if not _has_natten():
        return "needs natten: pip install natten"
    if setting.device == "cpu" and mode == BACKWARD:
        return "natten has no backward on CPU"
    return _beyond_the_map(setting)


def declines_unfolded(setting: Setting, level: str, mode: str) -> str | None:
    """Windows larger than the map, and memory."""
    unfolded = setting.batch * prod((*setting.space, *setting.kernel)) * setting.dim
    # keys and values, each a second time as products or gradients
    room = refuse_above_memory(setting.device, unfolded * setting.itemsize() * (5 if mode == BACKWARD else 3))
    return _beyond_the_map(setting) or room


def _beyond_the_map(setting: Setting) -> str | None:
    fits = all(k <= n for k, n in zip(setting.kernel, setting.space, strict=True))
    return None if fits else f"wants windows inside the map, got {setting.window} and {setting.space}"


def _has_natten() -> bool:
    return importlib.util.find_spec("natten") is not None


def _natten_core(setting: Setting) -> Callable[..., Tensor]:
    from natten import na1d, na2d  # pyright: ignore[reportMissingImports]

    heads = setting.attention_heads
    # what it has for a CPU it would compile, and cannot
    options = {"backend": "flex-fna", "torch_compile": False} if setting.device == "cpu" else {}
    attend = na1d if setting.height == 1 else na2d

    def core(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        # what it has for a CPU refuses a tensor that wants a gradient, also where none is recorded
        maps = (t.detach() if setting.device == "cpu" else t for t in (query, key, value))
        maps = (t.squeeze(1) if setting.height == 1 else t for t in maps)
        y = attend(*(t.unflatten(-1, (heads, -1)) for t in maps), kernel_size=setting.window, **options)
        return y.flatten(-2).view(-1, *setting.space, setting.dim)

    return core


def _unfolded_core(setting: Setting) -> Callable[..., Tensor]:
    heads, kernel = setting.attention_heads, setting.kernel
    rows, columns = (
        (torch.arange(n, device=setting.device) - k // 2).clamp(0, n - k)
        for n, k in zip(setting.space, kernel, strict=True)
    )

    def windows(t: Tensor) -> Tensor:
        # views of all windows in the map, then a copy of that of each position
        every = t.unflatten(-1, (heads, -1)).unfold(1, kernel[0], 1).unfold(2, kernel[1], 1)
        return every[:, rows[:, None], columns].flatten(-2)

    def core(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        q = query.unflatten(-1, (heads, 1, -1))
        shares = (q @ windows(key) * q.shape[-1] ** -0.5).softmax(-1)
        return (shares @ windows(value).transpose(-1, -2)).flatten(-3)

    return core


def _flex_core(setting: Setting):
    heads, (height, width) = setting.attention_heads, setting.space
    mask, attend_blocks = _block_mask(setting), compiled(flex_attention, setting.device)
    # of the sizes that GPU kernels take by default some are larger than the mask's blocks
    options: Any = None if setting.device == "cpu" else {"fwd_BLOCK_M": TILE**2, "fwd_BLOCK_N": TILE**2}

    def tiled(t: Tensor) -> Tensor:
        t = t.view(-1, height // TILE, TILE, width // TILE, TILE, heads, setting.dim // heads)
        return t.permute(0, 5, 1, 3, 2, 4, 6).flatten(2, 5)

    def core(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        y = attend_blocks(tiled(query), tiled(key), tiled(value), block_mask=mask, kernel_options=options)
        assert isinstance(y, Tensor)
        y = y.view(-1, heads, height // TILE, width // TILE, TILE, TILE, setting.dim // heads)
        return y.permute(0, 2, 4, 3, 5, 1, 6).reshape(-1, height, width, setting.dim)

    return core


def _block_mask(setting: Setting) -> BlockMask:
    (height, width), k = setting.space, setting.window
    across = width // TILE

    def place(token: Tensor) -> tuple[Tensor, Tensor]:
        tile, spot = token // TILE**2, token % TILE**2
        return tile // across * TILE + spot // TILE, tile % across * TILE + spot % TILE

    def near(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        (qy, qx), (ky, kx) = place(query), place(key)
        down = ky - (qy - k // 2).clamp(0, height - k)
        right = kx - (qx - k // 2).clamp(0, width - k)
        return (down >= 0) & (down < k) & (right >= 0) & (right < k)

    # tiles that hold a key of a tile's queries, found tile by tile: the whole mask has n^2 entries
    n = height * width // TILE**2
    tiles = torch.arange(n, device=setting.device)
    tile_y, tile_x = tiles // across * TILE, tiles % across * TILE
    touched = _touches(tile_y, height, k) & _touches(tile_x, width, k)
    counts = touched.sum(1).int()
    order = touched.int().argsort(dim=1, descending=True, stable=True).int()
    return BlockMask.from_kv_blocks(
        counts.view(1, 1, n),
        order.view(1, 1, n, n),
        BLOCK_SIZE=TILE**2,
        mask_mod=near,
        seq_lengths=(height * width, height * width),
    )


def _touches(start: Tensor, size: int, k: int) -> Tensor:
    """Which tiles of keys hold a key of a tile of queries, along one axis: (n, n)."""
    first = (start - k // 2).clamp(0, size - k)
    last = (start + TILE - 1 - k // 2).clamp(0, size - k) + k - 1
    return (start[None] + TILE > first[:, None]) & (start[None] <= last[:, None])


PEERS = (
    Peer("neighbourhood", "neighbourhood attention", build, declines),
    Peer("natten", "the same, by NATTEN", build_natten, declines_natten, of_all=False),
    Peer("neighbourhood-unfold", "the same, unfolded", build_unfolded, declines_unfolded, of_all=False),
)
