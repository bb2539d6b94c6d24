"""Aggregated attention (Shi, "TransNeXt", CVPR 2024): the registry's layer, and the same by `F.unfold`.

Each is held to the other in fp64.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core.backends import use_backend
from qna.bench.measure.contender import BACKWARD, Contender, Draw, Peer, Setting
from qna.bench.measure.gate import pick
from qna.bench.subjects.peers.memory_room import refuse_above_memory
from qna.mixers import AggregatedAttention2d

# positions per axis of a cell, as in the first stage of the networks
CELL = 8


class UnfoldedAggregation(nn.Module):
    """A layer's function as its equations are written: keys and values copied for each tap, one softmax."""

    def __init__(self, mixer: AggregatedAttention2d):
        super().__init__()
        self.mixer = mixer

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        layer, space = self.mixer, x.shape[1:3]
        rows, columns = layer.kernel_size
        heads = (layer.num_heads, -1)
        axes = layer._cells(x.shape)

        def unfold(t: Tensor) -> Tensor:
            margin = (rows // 2, columns // 2)
            taps = F.unfold(t.movedim(-1, 1), layer.kernel_size, padding=margin)
            # B, h, N, taps, d
            return taps.unflatten(1, (*heads, rows * columns)).permute(0, 1, 4, 3, 2)

        q = F.normalize(layer.q(x).unflatten(-1, heads), dim=-1)
        k, v = layer.kv(x).chunk(2, -1)
        k = unfold(F.normalize(k.unflatten(-1, heads), dim=-1).flatten(-2))
        v = unfold(v)
        inside = F.unfold(
            torch.ones_like(x[:1, None, :, :, 0]), layer.kernel_size, padding=(rows // 2, columns // 2)
        )
        inside = inside[0].T
        cells = F.adaptive_avg_pool2d(F.gelu(layer.sr(x.movedim(-1, 1))), (axes[0].cells, axes[1].cells))
        far = layer.kv(layer.norm(cells.flatten(2).transpose(1, 2)))
        far_k, far_v = far.unflatten(-1, (2, *heads)).permute(2, 0, 3, 1, 4)
        queries, flat = layer.queries, q.flatten(1, 2).transpose(1, 2)
        keys = inside.sum(1, keepdim=True) + far_k.shape[2]
        scaled = (flat + queries.embedding) * F.softplus(queries.temperature) * keys.log()
        near = torch.einsum("bhnd,bhntd->bhnt", scaled, k) + layer.local_bias[:, None] + inside.log()
        across = scaled @ F.normalize(far_k, dim=-1).transpose(-1, -2) + layer.position_bias(axes)
        shares = torch.cat([near, across], -1).softmax(-1)
        weights = shares[..., : rows * columns] + flat @ layer.tokens + layer.token_bias
        y = torch.einsum("bhnt,bhntd->bhnd", weights, v) + shares[..., rows * columns :] @ far_v
        return layer.proj(y.transpose(1, 2).flatten(2).unflatten(1, space))


def build(setting: Setting, level: str, *, plain: bool) -> Contender:
    """The layer with the setting's window and heads, in one form; the other is its definition."""
    mixer = AggregatedAttention2d(
        setting.dim,
        num_heads=setting.attention_heads,
        kernel_size=setting.window,
        pool_ratio=CELL,
        pretrain_size=setting.space,
    )
    mixer, draw = mixer.to(setting.device, setting.torch_dtype).eval(), Draw(setting)
    with torch.no_grad():
        for p in mixer.parameters():
            if bool((p == p.flatten()[0]).all()):
                p.add_(torch.empty_like(p).normal_(std=0.5, generator=draw.generator))
            elif p.ndim > 1:
                p.normal_(std=(p.numel() // p.shape[0]) ** -0.5, generator=draw.generator)
    forms = {True: UnfoldedAggregation(mixer), False: mixer}
    x = draw.map()
    leaves = {"x": x, **dict(mixer.named_parameters())}
    exact = copy.deepcopy(forms[not plain]).double()
    cells = sum(p.numel() // p.shape[0] for p in mixer.parameters() if p.ndim > 1)
    definition = partial(_at, exact, "" if plain else "mixer.")
    extra = {"pool_ratio": CELL, "heads": setting.attention_heads}
    return Contender(lambda: forms[plain](x), leaves, definition, setting.window**2 + cells, extra)


def _at(exact: nn.Module, prefix: str, leaves: Mapping[str, Tensor], at: Tensor) -> Tensor:
    parameters = {f"{prefix}{name}": t for name, t in leaves.items() if name != "x"}
    with use_backend("reference"):
        return pick(torch.func.functional_call(exact, parameters, (leaves["x"],)), at)


def declines(setting: Setting, level: str, mode: str, *, plain: bool) -> str | None:
    """The level of ops, even windows, and in the plain form memory."""
    if level != "layer":
        return "a whole layer: see `qna bench layer`"
    if setting.window % 2 == 0:
        return f"windows are odd, got {setting.window}"
    if not plain:
        return None
    n = setting.batch * setting.height * setting.width
    return refuse_above_memory(
        setting.device,
        2 * n * setting.window**2 * setting.dim * setting.itemsize() * (3 if mode == BACKWARD else 2),
    )


PEERS = tuple(
    Peer(name, told, partial(build, plain=plain), partial(declines, plain=plain), of_all=False)
    for name, told, plain in (
        ("aggregated", f"aggregated attention, cells of {CELL} x {CELL}", False),
        ("aggregated-unfold", "aggregated attention, unfolded", True),
    )
)
