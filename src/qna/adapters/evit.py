"""EViT: in some blocks the image tokens that the class token attends least are dropped, or fused into one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core.about import About
from qna._core.errors import InvalidInput
from qna.adapters._parts.around import AroundBlock
from qna.adapters._parts.attention import attended, finished, projected, weights_of
from qna.adapters._parts.vit import blocks_of, chosen_blocks, without_maps
from qna.adapters.row import Adapter, AdapterRow, AuthorsNames


@dataclass(frozen=True)
class EViT(Adapter):
    """Reorganise the tokens of a plain vision transformer between attention and MLP of some blocks.

    What the class token attends decides (Liang et al., ICLR 2022): a is its attention to each image token,
    the mean over heads. Of M image tokens the ``ceil(keep_rate * M)`` with the largest a stay, in descending
    order, and with `fuse` one token ``sum a_i x_i`` of the others, a not normalised, is appended; it counts
    as an image token from then on. With rate 1 the network computes what it did. Class, distillation and
    register tokens are never dropped.

    The sequence gets shorter, and so does the time: a block on N tokens of C channels takes 12 N C^2 + 2 N^2
    C multiply-adds. No parameter is added; weights are those of the bare network.

    Attributes:
        keep_rate: part of the image tokens that stay, above 0 and at most 1.
        layers: blocks that drop, from 0.
        fuse: keep one token of what is dropped.
        tokens: how many stay, in place of a rate; a block that has fewer drops none.
        start_epochs: epochs of training at rate 1.
        shrink_epochs: epochs after them in which the rate falls along a cosine to `keep_rate`.
    """

    name: ClassVar[str] = "evit"
    beside: ClassVar[frozenset[str]] = frozenset({"gated"})

    keep_rate: float = 0.7
    layers: tuple[int, ...] = (3, 6, 9)
    fuse: bool = True
    tokens: int | None = None
    start_epochs: int = 0
    shrink_epochs: int = 0

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.keep_rate <= 1:
            raise InvalidInput(f"evit: keep_rate must be above 0 and at most 1, got {self.keep_rate!r}")
        if self.tokens is not None and self.tokens < 1:
            raise InvalidInput(f"evit: tokens must be an integer of at least 1, got {self.tokens!r}")
        if min(self.start_epochs, self.shrink_epochs) < 0:
            raise InvalidInput(
                f"evit: start_epochs and shrink_epochs must be at least 0, got {self.start_epochs} and "
                f"{self.shrink_epochs}"
            )

    def transform(self, network: Any) -> list[str]:
        """Put a block that drops tokens in the place of each of `layers`."""
        blocks = blocks_of(network, self.name)
        chosen = chosen_blocks(self.layers, len(blocks), self.name)
        if not network.has_class_token:
            raise InvalidInput("evit asks a class token what matters, and this network has none")
        for i in chosen:
            network.blocks[i] = ReorganisingBlock(blocks[i], self, network.num_prefix_tokens)
        without_maps(network, "evit leaves tokens that have no grid")
        return []

    def rate(self, epoch: int) -> float:
        """The rate of training epoch `epoch`, from 0."""
        past = epoch - self.start_epochs
        if past < 0:
            return 1.0
        if past >= self.shrink_epochs:
            return self.keep_rate
        return self.keep_rate + (1 - self.keep_rate) * (math.cos(math.pi * past / self.shrink_epochs) + 1) / 2

    def kept(self, image_tokens: int, rate: float | None = None) -> int:
        """How many of so many image tokens stay in a block."""
        if self.tokens is not None:
            return min(self.tokens, image_tokens)
        return math.ceil((self.keep_rate if rate is None else rate) * image_tokens)

    def token_counts(self, image_tokens: int, depth: int) -> list[int]:
        """Image tokens after attention of each block, which its MLP and the next block read."""
        counts = []
        for i in range(depth):
            if i in self.layers and (kept := self.kept(image_tokens)) < image_tokens:
                image_tokens = kept + self.fuse
            counts.append(image_tokens)
        return counts


class ReorganisingBlock(AroundBlock):
    """timm's block with `EViT` between attention and MLP; all parts are the block's own.

    Args:
        block: whose place it takes.
        adapter: what it does.
        prefix: tokens before the image's, which stay.
    """

    def __init__(self, block: Any, adapter: EViT, prefix: int):
        super().__init__(block)
        self.adapter = adapter
        self.prefix = prefix
        self.training_rate = adapter.rate(0)
        # where `kept_tokens` finds the indices of a call
        self.noted: list[Tensor] | None = None

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Take the rate of this epoch for training; evaluation always takes the last."""
        self.training_rate = self.adapter.rate(epoch)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """(B, N, C) -> (B, N', C)."""
        if attn_mask is not None or is_causal:
            raise InvalidInput("evit takes no mask of tokens")
        attended, paid = self._attend(self.norm1(x))
        return self.with_mlp(self._reorganised(self.with_attention(x, attended), paid))

    def _attend(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Attention of all tokens, and what the class token pays to the image's, (B, M), mean over heads."""
        q, k, v = projected(self.attn, x)
        if self.training and self.attn.attn_drop.p:
            # the authors take what is paid after dropout, of which the fused form tells nothing
            weights = weights_of(self.attn, q, k)
            y, paid = weights @ v, weights[:, :, 0]
        else:
            y, paid = attended(self.attn, q, k, v), weights_of(self.attn, q[:, :, :1], k)[:, :, 0]
        return finished(self.attn, y, x), paid[..., self.prefix :].mean(1)

    def ranked(self, paid: Tensor) -> Tensor:
        """Image tokens (B, M), those that stay first."""
        if torch.compiler.is_exporting():
            # ONNX has no stable sort; of what is paid alike its TopK, too, takes the first first
            return paid.topk(paid.shape[1], dim=1).indices
        return paid.argsort(dim=1, descending=True, stable=True)

    def _reorganised(self, x: Tensor, paid: Tensor) -> Tensor:
        adapter, tokens = self.adapter, paid.shape[1]
        kept = adapter.kept(tokens, self.training_rate if self.training else adapter.keep_rate)
        if kept == tokens:
            return x
        order = self.ranked(paid)
        if self.noted is not None:
            self.noted.append(order[:, :kept])
        image = x[:, self.prefix :]
        parts = [x[:, : self.prefix], _taken(image, order[:, :kept])]
        if adapter.fuse:
            # the weights as they are, not normalised
            dropped = order[:, kept:]
            parts.append(paid.gather(1, dropped)[:, None].to(x.dtype) @ _taken(image, dropped))
        return torch.cat(parts, 1)


@torch.no_grad()
def kept_tokens(network: nn.Module, images: Tensor) -> list[Tensor]:
    """Which image tokens a network with `EViT` keeps, for drawing.

    Args:
        network: as the adapter left it.
        images: (B, 3, H, W).

    Returns:
        of each block that drops, (B, k) indices of the grid's positions, row by row, in the block's order; -1
        stands for a token that an earlier block fused.

    Raises:
        InvalidInput: for a network without the adapter.
    """
    blocks: list[Any] = [m for m in network.modules() if isinstance(m, ReorganisingBlock)]
    if not blocks:
        raise InvalidInput("the network holds no evit; apply the adapter first")
    with _noting(blocks) as noted:
        network(images)
    places: Tensor | None = None
    found = []
    for block, own in zip(blocks, noted, strict=True):
        for order in own:
            # positions as the block before left them; what it fused stands last
            places = order if places is None else places.gather(1, order)
            found.append(places)
            if block.adapter.fuse:
                places = F.pad(places, (0, 1), value=-1)
    return found


@contextmanager
def _noting(blocks: list[ReorganisingBlock]) -> Iterator[list[list[Tensor]]]:
    noted: list[list[Tensor]] = [[] for _ in blocks]
    for block, own in zip(blocks, noted, strict=True):
        block.noted = own
    try:
        yield noted
    finally:
        for block in blocks:
            block.noted = None


def _taken(x: Tensor, order: Tensor) -> Tensor:
    """Tokens of (B, M, C) in the order (B, k)."""
    return x.gather(1, order[..., None].expand(-1, -1, x.shape[-1]))


ROW = AdapterRow(
    EViT,
    About(
        "Not All Patches are What You Need: Expediting Vision Transformers via Token Reorganizations",
        "Liang, Ge, Tong et al.",
        "ICLR 2022",
        "2202.07800",
        "the abstract; the authors' code, youweiliang/evit at 5ca95a7 (Apache-2.0)",
        "tokens beside the class token that are none of the image's (DeiT's distillation token) are never "
        "dropped, where the authors score them like the image's; the schedule moves by epochs, theirs by "
        "updates",
        "exact",
    ),
    "image tokens that the class token attends least are dropped or fused, and the sequence gets shorter",
    {"keep_rate": 0.6, "layers": (1, 2)},
    frozenset({"vit", "distilled", "registers"}),
    # no parameter is added, and the others are called as timm calls them
    AuthorsNames(),
)
