"""Bi-level routing attention (Zhu et al., CVPR 2023): what regions choose, gathered in parts or at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from qna.bench.measure.contender import BACKWARD, Contender, Peer, Setting
from qna.bench.measure.gate import pick
from qna.bench.subjects.peers.definition import by_heads
from qna.bench.subjects.peers.layer import contender_of_core
from qna.bench.subjects.peers.memory_room import refuse_above_memory
from qna.mixers.routing.attend import attend_routed
from qna.mixers.routing.choose import choose_regions
from qna.mixers.routing.regions import Regions

# the published networks' regions per axis; the window plays no part
REGIONS, TOPK = 7, 4
CHUNKED, GATHERED, FUSED = "routing", "routing-gather", "routing-gather-sdpa"

# (queries, keys and values by regions, routes, heads, scale, positions that are no keys) -> what is attended
Attend = Callable[[Tensor, Tensor, Tensor, Tensor, int, float, Tensor | None], Tensor]


def build(setting: Setting, level: str, *, attend: Attend) -> Contender:
    """7 x 7 regions, of which each attends 4; padding is masked. The parts but `attend` are the mixer's."""
    heads, scale = setting.attention_heads, setting.dim**-0.5
    regions = _regions(setting)

    def core(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        q, k, v = (regions.tile(regions.fill_up(t)) for t in (query, key, value))
        inside = regions.inside(query.device) if regions.pads else None
        routes = choose_regions(q, k, TOPK, inside=inside, skip_empty=True)
        hidden = None if inside is None else ~inside
        q, k, v = (t.flatten(0, 1) for t in (q, k, v))
        attended = attend(q, k, v, routes, heads, scale, hidden)
        return regions.crop(regions.untile(attended.unflatten(0, (-1, regions.number))))

    def definition(leaves: Mapping[str, Tensor], at: Tensor) -> Tensor:
        # a position at a time: the regions that its own meets best, and all their positions
        number = _numbers(setting, at.device)
        split = by_heads(heads)
        rows = []
        query, key, value = (leaves[name] for name in ("query", "key", "value"))
        for (image, y, x), own in zip(at.tolist(), pick(query, at), strict=True):
            means = [_means(t[image].detach(), number) for t in (query, key)]
            met = means[0][number[y, x]] @ means[1].T
            chosen = met.masked_fill(torch.bincount(number.flatten(), minlength=len(met)) == 0, -torch.inf)
            seen = torch.isin(number, chosen.topk(TOPK).indices)
            scores = torch.einsum("hd,thd->th", split(own), split(key[image][seen])) * scale
            rows.append(torch.einsum("th,thd->hd", scores.softmax(0), split(value[image][seen])).flatten())
        return torch.stack(rows)

    extra = {"regions": REGIONS, "topk": TOPK, "heads": heads}
    terms = TOPK * regions.tokens + setting.dim // heads
    return contender_of_core(setting, level, core, definition, terms=terms, extra=extra)


def chunked(  # noqa: PLR0917 - as all of `Attend`
    q: Tensor, k: Tensor, v: Tensor, routes: Tensor, heads: int, scale: float, hidden: Tensor | None
) -> Tensor:
    """This library's: the keys and values of a few regions at a time."""
    return attend_routed(q, k, v, routes, num_heads=heads, scale=scale, hidden=hidden)


def gathered(  # noqa: PLR0917 - as all of `Attend`
    q: Tensor,
    k: Tensor,
    v: Tensor,
    routes: Tensor,
    heads: int,
    scale: float,
    hidden: Tensor | None,
    *,
    fused: bool,
) -> Tensor:
    """All keys and values topk times, as the authors' code has them; fused: by SDPA, without scores."""
    query, key, value = (
        by_heads(heads)(t).transpose(1, 2) for t in (q, k[routes].flatten(1, 2), v[routes].flatten(1, 2))
    )
    keep = None if hidden is None else ~hidden[routes % len(hidden)].flatten(1)[:, None, None]
    if fused:
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=keep, scale=scale)
    else:
        scores = (query * scale) @ key.transpose(-1, -2)
        scores = scores if keep is None else scores.masked_fill(~keep, -torch.inf)
        out = scores.softmax(-1) @ value
    return out.transpose(1, 2).flatten(2)


def declines(setting: Setting, level: str, mode: str) -> str | None:
    """Memory for the scores, and twice as much with gradients."""
    regions = _regions(setting)
    scores = setting.batch * regions.number * regions.tokens**2 * TOPK * setting.attention_heads
    copies = 4 if mode == BACKWARD else 2
    return refuse_above_memory(setting.device, scores * copies * setting.itemsize())


def _regions(setting: Setting) -> Regions:
    rows, columns = (-(-n // REGIONS) for n in setting.space)
    return Regions(REGIONS, REGIONS, rows, columns, *setting.space)


def _numbers(setting: Setting, device: torch.device) -> Tensor:
    """The region of each position: (H, W)."""
    down, across = (torch.arange(n, device=device) // -(-n // REGIONS) for n in setting.space)
    return down[:, None] * REGIONS + across


def _means(map_: Tensor, number: Tensor) -> Tensor:
    """Of a map (H, W, C) the mean of each region: (regions, C), 0 where there is nothing of it."""
    sums = map_.new_zeros(REGIONS**2, map_.shape[-1]).index_add_(0, number.flatten(), map_.flatten(0, 1))
    return sums / torch.bincount(number.flatten(), minlength=REGIONS**2).clamp(min=1)[:, None]


# among themselves: no comparison of windows asks for them
PEERS = (
    Peer(CHUNKED, "bi-level routing", partial(build, attend=chunked), of_all=False),
    Peer(
        GATHERED,
        "bi-level routing, gathered at once",
        partial(build, attend=partial(gathered, fused=False)),
        declines,
        of_all=False,
    ),
    Peer(
        FUSED,
        "bi-level routing, gathered at once, SDPA",
        partial(build, attend=partial(gathered, fused=True)),
        of_all=False,
    ),
)
