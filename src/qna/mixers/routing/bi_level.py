"""Bi-level routing attention: regions choose regions, and only what lies in the chosen ones is attended."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qna._core import checks
from qna._core.about import About
from qna._core.checks import per_axis
from qna._core.errors import InvalidInput, check_choice
from qna.mixers.routing.attend import attend_routed, gathered_at_once, routed_shares
from qna.mixers.routing.choose import choose_regions
from qna.mixers.routing.regions import Regions
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.head_gate import GatedHeads
from qna.parts.image_view import as_image
from qna.parts.initializers import init_linear_
from qna.parts.linear import apply_linear
from qna.parts.open_size import is_open
from qna.parts.precision import as_they_are
from qna.parts.rows import PositionRows

BORDERS = ("mask", "input", "projected")


class BiLevelRoutingAttention2d(GatedHeads, nn.Module):
    """Bi-level routing attention (Zhu et al., CVPR 2023) of maps of any height and width.

    A map is split into S x S regions, S fixed, so that they grow with it. With Q^r and K^r the means of
    queries and keys over each region, I^r the regions that a region attends, and C all channels, not those of
    a head::

        I^r = topk regions of  Q^r (K^r)^T                      in each row, the same for all heads
        O   = softmax(Q gather(K, I^r)^T / sqrt(C)) gather(V, I^r) + LePE(V)
        y   = out(O)

    LePE is a depthwise convolution of the values with a bias. No gradient passes through the choice. With n
    positions in S^2 regions it costs ``n C (4 C + 2 topk n / S^2 + k^2) + S^4 C`` multiply-adds, k x k being
    the size of the convolution. Keys and values are never copied topk times: a few regions gather theirs at
    a time, forward and backward, and no score outlives them.

    Args:
        dim: channels of input and output.
        num_heads: heads; divides `dim`.
        regions: S, regions per column and per row; an integer for both.
        topk: regions that a region attends; S^2 for full attention.
        lepe_size: positions per axis of the convolution, odd; 0 for none.
        border: what fills up a map that regions do not divide, behind its end. "mask": nothing that is
            attended or counts in a mean. "input": zeros before the projection, whose queries, keys and values
            are the biases, and which count (the authors' first code, that of most of their checkpoints).
            "projected": zeros after it, which are attended but do not count in a mean (their second code;
            regions are rounded down there, so that there may be more of them than S^2).

    Raises:
        InvalidInput: `num_heads` does not divide `dim`, there are not `topk` regions, `lepe_size` is even, or
            `border` is unknown.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        regions: int | Sequence[int] = 7,
        topk: int = 4,
        lepe_size: int = 5,
        border: str = "mask",
    ):
        super().__init__()
        name = type(self).__name__
        checks.head_dim(name, dim, num_heads)
        checks.positive(name, topk=topk)
        checks.natural(name, lepe_size=lepe_size)
        self.dim = self.out_dim = dim
        self.num_heads = num_heads
        self.regions = per_axis("regions", regions, 2, minimum=1)
        if topk > math.prod(self.regions):
            raise InvalidInput(
                f"{name}: topk={topk} of {self.regions[0]} x {self.regions[1]} regions are not there; "
                f"{math.prod(self.regions)} is full attention"
            )
        if lepe_size and lepe_size % 2 == 0:
            raise InvalidInput(f"{name}: lepe_size must be odd, or 0 for none, got {lepe_size}")
        self.topk = topk
        self.border = check_choice("border", border, BORDERS)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.lepe = nn.Conv2d(dim, dim, lepe_size, padding=lepe_size // 2, groups=dim) if lepe_size else None
        self.out = nn.Linear(dim, dim)
        init_linear_(self.qkv)
        init_linear_(self.out)

    @property
    def scale(self) -> float:
        """Of the products: by all channels, not by those of a head."""
        return self.dim**-0.5

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, H, W, dim)."""
        regions = self._regions_of(x)
        with as_they_are(x.device):
            return self._mixed(x, regions)

    def _mixed(self, x: Tensor, regions: Regions) -> Tensor:
        attended, enhanced = self._attend(x, regions)
        whole = self._gated(x, regions.crop(regions.untile(attended)))
        if enhanced is not None:
            whole = whole + enhanced
        if any(map(is_open, x.shape)):
            # whether this is a copy depends on the sizes, which a recorder would keep to
            whole = whole.clone(memory_format=torch.contiguous_format)
        return apply_linear(self.out, whole)

    def routes(self, x: Tensor) -> Tensor:
        """The regions that each region attends, best first: int64 (B, down, across, topk), row by row."""
        regions = self._regions_of(x)
        query, key, _, inside = self._project(x, regions)
        routes = self._routes(query, key, inside) % regions.number
        return routes.view(len(x), regions.down, regions.across, routes.shape[-1])

    def attention_map(self, x: Tensor) -> Tensor:
        """The softmax of every position over the regions that its own attends, in the order of `routes`.

        Returns:
            (B, H, W, h, topk, rows, columns), at least fp32, rows x columns being a region; 0 where masked.
        """
        regions = self._regions_of(x)
        shares, _ = self._shares(x, regions)
        whole = regions.crop(regions.untile(shares.permute(0, 1, 3, 2, 4).flatten(3)))
        return whole.unflatten(-1, (self.num_heads, -1, regions.rows, regions.columns))

    def attention_received(self, x: Tensor) -> Tensor:
        """What each position gets from all: (B, H, W), 1 where routes and attention are even."""
        regions = self._regions_of(x)
        shares, routes = self._shares(x, regions)
        if regions.pads:
            # queries of padding are nobody's
            shares = shares * regions.inside(x.device)[:, None, :, None]
        of_keys = shares.mean(2).sum(2).flatten(0, 1).unflatten(-1, (routes.shape[1], -1))
        received = of_keys.new_zeros(len(routes), regions.tokens)
        received.index_add_(0, routes.flatten(), of_keys.flatten(0, 1))
        tiled = received.view(len(x), regions.number, regions.tokens, 1)
        return regions.crop(regions.untile(tiled)).squeeze(-1)

    def attention_rows(self, x: Tensor) -> PositionRows:
        """Where each position looks: the softmax, mean over heads; what padding takes is left out.

        Each image has routes of its own, so that every row holds all positions of the map.
        """
        regions = self._regions_of(x)
        shares, routes = self._shares(x, regions)
        places = torch.arange(regions.number * regions.tokens, device=x.device)
        places = places.view(regions.number, -1)[routes % regions.number].flatten(1)  # N, topk * tokens
        places = places.unflatten(0, (-1, regions.number, 1)).expand(-1, -1, regions.tokens, -1)
        dense = shares.new_zeros(*shares.shape[:2], regions.tokens, regions.number * regions.tokens)
        dense.scatter_(-1, places, shares.mean(2))
        # first the queries, then the keys, brought to the map's order
        queries = regions.crop(regions.untile(dense)).flatten(1, 2)
        keys = queries.unflatten(-1, (regions.number, -1, 1)).flatten(0, 1)
        whole = regions.crop(regions.untile(keys)).flatten(1)
        n = whole.shape[-1]
        whole = whole.unflatten(0, (-1, n))
        return PositionRows(whole, torch.arange(n, device=x.device).expand(n, -1))

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size` = (B, H, W, dim), filled up to whole regions."""
        batch, height, width, dim = size
        regions = self._regions(size)
        filled = regions.number * regions.tokens
        of_lepe = filled if self.border == "input" else height * width
        taps = 0 if self.lepe is None else self.lepe.weight[0].numel()
        attended = 2 * min(self.topk, regions.number) * regions.tokens
        linear = 3 * filled * dim + height * width * dim
        return batch * dim * (linear + filled * attended + regions.number**2 + of_lepe * taps)

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: queries, keys, values, LePE, what is attended, and what is gathered.

        Where there is padding of zeros, queries, keys and values with what the projection made of it.
        """
        regions = self._regions(size)
        maps = size[0] * regions.number * regions.tokens * self.dim
        topk = min(self.topk, regions.number)
        gathered = gathered_at_once(size[0] * regions.number, regions.tokens, topk, self.dim)
        replaced = regions.pads and self.border != "input"
        return max(5 * maps + gathered, 6 * maps if replaced else 0)

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        told = ("num_heads", "regions", "topk", "border")
        return f"{self.dim}, " + ", ".join(f"{name}={getattr(self, name)}" for name in told)

    def _regions_of(self, x: Tensor) -> Regions:
        """The regions of a map, which is looked at before its sizes are taken apart."""
        checks.channels_last_map(type(self).__name__, x, self.dim, 2)
        return self._regions(x.shape)

    def _regions(self, size: Sequence[Any]) -> Regions:
        """The regions of a map (B, H, W, C)."""
        height, width = size[1:3]
        down, across = self.regions
        if self.border == "projected":
            # a question about an open size would bind a graph to its answer
            least: list[Any] = [
                torch.sym_max(n // s, 1) if isinstance(n, torch.SymInt) else max(n // s, 1)
                for n, s in zip((height, width), self.regions, strict=True)
            ]
            rows, columns = least
            down, across = (height + rows - 1) // rows, (width + columns - 1) // columns
        else:
            rows, columns = (height + down - 1) // down, (width + across - 1) // across
        return Regions(down, across, rows, columns, height, width)

    def _project(self, x: Tensor, regions: Regions) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Queries, keys and values by regions, (B, number, tokens, C) each, and which lie in the map.

        None where all of them do, or those that do not are like the others.
        """
        # tiled before the projection: a third of what would be copied after it
        packed = apply_linear(self.qkv, regions.tile(regions.fill_up(x)))
        inside = None
        if regions.pads and self.border != "input":
            inside = regions.inside(x.device)
            packed = torch.where(inside[..., None], packed, 0)
        query, key, value = packed.split(self.dim, -1)
        return query, key, value, inside

    def _attend(self, x: Tensor, regions: Regions) -> tuple[Tensor, Tensor | None]:
        """What is attended, (B, number, tokens, C), and LePE; queries, keys and values end here."""
        query, key, value, inside = self._project(x, regions)
        enhanced = self._enhance(value, regions)
        attended = attend_routed(
            query.flatten(0, 1),
            key.flatten(0, 1),
            value.flatten(0, 1),
            self._routes(query, key, inside),
            num_heads=self.num_heads,
            scale=self.scale,
            hidden=self._hidden(inside),
        )
        return attended.unflatten(0, (-1, regions.number)), enhanced

    def _routes(self, query: Tensor, key: Tensor, inside: Tensor | None) -> Tensor:
        """Rows of all regions that each region attends: int64 (B * count, topk)."""
        return choose_regions(query, key, self.topk, inside=inside, skip_empty=self.border == "mask")

    def _hidden(self, inside: Tensor | None) -> Tensor | None:
        return ~inside if inside is not None and self.border == "mask" else None

    def _enhance(self, value: Tensor, regions: Regions) -> Tensor | None:
        """LePE of the values: (B, H, W, C)."""
        if self.lepe is None:
            return None
        whole = regions.untile(value)
        if self.border == "input":
            # the biases behind the map's end are seen
            return regions.crop(self.lepe(as_image(whole)).movedim(1, -1))
        return self.lepe(as_image(regions.crop(whole))).movedim(1, -1)

    def _shares(self, x: Tensor, regions: Regions) -> tuple[Tensor, Tensor]:
        """The softmax, (B, number, h, tokens, topk * tokens), and the routes."""
        query, key, _, inside = self._project(x, regions)
        routes = self._routes(query, key, inside)
        wide = torch.promote_types(x.dtype, torch.float32)
        query, key = (t.flatten(0, 1).to(wide) for t in (query, key))
        shares = routed_shares(
            query,
            key,
            routes,
            num_heads=self.num_heads,
            scale=self.scale,
            hidden=self._hidden(inside),
        )
        return shares.unflatten(0, (-1, regions.number)), routes


ROW = MixerRow(
    BiLevelRoutingAttention2d,
    About(
        title="BiFormer: Vision Transformer with Bi-Level Routing Attention",
        authors="Zhu, Wang, Ke et al.",
        venue="CVPR 2023",
        arxiv="2303.08810",
        read="the authors' code, rayleizhu/BiFormer at 1697bbb (MIT), both of its implementations",
        differs="keys and values are gathered for a few regions at a time, never topk times; padding can be "
        "masked, which is the default; what their published models do not use (pooled keys, routing that "
        "learns or weighs) is not here",
        status="exact",
    ),
    Example((5, 7), {"num_heads": 2, "regions": 3, "topk": 2, "lepe_size": 3}),
    Traits(2, heads=True),
)
