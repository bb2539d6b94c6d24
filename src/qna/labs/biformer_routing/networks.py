"""Networks whose regions attend others that they choose, others at random, themselves alone, or all."""

from __future__ import annotations

import torch
from torch import Tensor

from qna.mixers import BiLevelRoutingAttention2d
from qna.models import Backbone, BlockSpec

ROUTED, RANDOM, WINDOWS, FULL = "routed", "random", "windows", "full"
CONTENDERS = (ROUTED, RANDOM, WINDOWS, FULL)


class FixedRoutes2d(BiLevelRoutingAttention2d):
    """Bi-level routing attention with routes that no map changes: each region's own, then random others.

    With `topk` 1 it is attention inside windows. Which others is drawn once, when the layer is made.
    """

    fixed: Tensor

    def __init__(self, dim: int, *, num_heads: int, regions: int, topk: int):
        super().__init__(dim, num_heads=num_heads, regions=regions, topk=topk)
        count = regions * regions
        own, others = torch.arange(count)[:, None], torch.rand(count, count).fill_diagonal_(2.0)
        self.register_buffer("fixed", torch.cat([own, others.argsort(1)[:, : topk - 1]], 1))

    def _routes(self, query: Tensor, key: Tensor, inside: Tensor | None) -> Tensor:
        first = torch.arange(query.shape[0], device=query.device) * query.shape[1]
        return (self.fixed + first[:, None, None]).flatten(0, 1)


def build(
    name: str, *, channels: int, size: int, dim: int, blocks: int, patch_size: int, regions: int, topk: int
) -> Backbone:
    """A contender: all have the same parameters, and differ in their routes alone.

    Args:
        name: in `CONTENDERS`.
        channels: of the images.
        size: their height and width.
        dim: channels.
        blocks: of its one stage.
        patch_size: pixels per axis of a position of the map.
        regions: per axis.
        topk: regions that a region attends, where it attends neither itself alone nor all.
    """
    mixer = FixedRoutes2d if name in (RANDOM, WINDOWS) else BiLevelRoutingAttention2d
    # one region that attends itself is the whole map
    routes = {WINDOWS: (regions, 1), FULL: (1, 1)}.get(name, (regions, topk))
    spec = BlockSpec(mixer, {"num_heads": dim // 16, "regions": routes[0], "topk": routes[1]})
    return Backbone(
        [[spec] * blocks],
        dim=dim,
        pool_heads=dim // 16,
        patch_size=patch_size,
        in_chans=channels,
        num_classes=10,
        img_size=size,
    )
