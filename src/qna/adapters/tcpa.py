"""TCPA: the class token and each image token choose prompts of their own from two pools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core.about import About
from qna._core.checks import not_negative
from qna._core.errors import InvalidInput
from qna.adapters._parts.prompts import (
    PromptedBlock,
    Prompts,
    check_prompts,
    fourier,
    freeze_backbone,
    uniform,
)
from qna.adapters._parts.vit import blocks_of
from qna.adapters.row import Adapter, AdapterRow
from qna.parts.losses import LossOutlet, ReturnLosses
from qna.parts.precision import without_autocast

Form = Literal["token", "role", "open"]


@dataclass(frozen=True)
class TCPA(Adapter):
    """Token coordinated prompt attention in a plain vision transformer (Liu et al., ICML 2025).

    Each block has a pool of prompts for the class token and one for image tokens, which end there. Attention
    of N tokens x to themselves and to all P prompts is masked after its softmax and not normalised again,
    ``y = (softmax(q [k, k_p]) * [1, M]) [v, v_p]``, so that what is closed still takes its part of the sum:

    role (R-TCPA): M is 1 from the class token to its pool and from image tokens to theirs, else 0.
    token (T-TCPA): beside it each token sees only the prompts of the `top` keys of its pool that are nearest,
        by cosine, to x as the block gets it, before its norm. In training the network returns `WithLosses`
        with "prompt_match": `match_weight` times the sum over blocks of the two pools' mean ``1 - cosine`` of
        tokens and chosen keys. The choice has no gradient, so that this loss alone trains keys.
    open: M is 1, which is VPT's deep form.

    Distillation and register tokens take the class token's pool. The network's weights are frozen when it is
    applied; pools and the classifier are trained, and what other adapters bring. With pools of K prompts of
    `length` tokens, K (length + 1) C numbers a pool and block are added, K length C without keys. A block
    takes 2 P C^2 + 3 N P C + N K C multiply-adds more, the first part once for a batch in evaluation, and
    N P numbers a head.

    Attributes:
        form: "token", "role" or "open".
        pool: prompts in the pools of the class token and of image tokens.
        top: of the form "token": how many of them a token sees.
        length: tokens of a prompt in each pool.
        fourier: prompts of both pools together go through the real part of a Fourier transform over tokens
            and channels, as in VFPT; each then mixes both pools.
        dropout: part of the prompts' numbers that is dropped in training, before they are transformed.
        match_weight: of the form "token": weight of the loss.
        random_epochs: of the form "token": epochs of training, from the first, in which prompts are chosen at
            random; the authors' recipe has 10 of 100. Evaluation always matches.
    """

    name: ClassVar[str] = "tcpa"
    beside: ClassVar[frozenset[str]] = frozenset({"gated"})

    form: Form = "token"
    pool: tuple[int, int] = (18, 18)
    top: tuple[int, int] = (10, 10)
    length: tuple[int, int] = (1, 1)
    fourier: bool = False
    dropout: float = 0.1
    match_weight: float = 0.01
    random_epochs: int = 0

    def __post_init__(self):
        for name in ("pool", "top", "length"):
            pair = getattr(self, name)
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise InvalidInput(
                    f"tcpa: {name} must be two integers, one a pool (class token, image), got {pair!r}"
                )
        super().__post_init__()
        for name in ("pool", "top", "length"):
            for count in getattr(self, name):
                check_prompts(self.name, self.dropout, **{name: count})
        if self.form != "token" and self.random_epochs:
            raise InvalidInput(f"tcpa: nothing is chosen in the form {self.form!r}; leave random_epochs at 0")
        if self.form == "token" and any(t > size for t, size in zip(self.top, self.pool, strict=True)):
            raise InvalidInput(f"tcpa: top must be at most pool, got {self.top} of {self.pool}")
        not_negative(self.name, match_weight=self.match_weight, random_epochs=self.random_epochs)

    def transform(self, network: Any) -> list[str]:
        """Put a block with pools in the place of every block."""
        blocks = blocks_of(network, self.name)
        if not network.has_class_token:
            raise InvalidInput(
                "tcpa gives the class token prompts of its own, and this network has none; vpt suits it"
            )
        told, outlets = freeze_backbone(network), []
        for i, block in enumerate(blocks):
            pools = CoordinatedPools(self, block.attn.qkv.weight, network.num_prefix_tokens)
            outlets.append(pools.outlet)
            network.blocks[i] = PromptedBlock(block, pools)
        if self.form == "token" and self.match_weight:
            # the mean over blocks, times their number
            ReturnLosses("prompt_match", self.match_weight * len(blocks), outlets).put_into(network)
        return [told]


class PromptPool(nn.Module):
    """Prompts with keys that tokens choose them by.

    Args:
        size: of the pool.
        length: tokens of a prompt.
        top: prompts that a token chooses; None for all, without keys.
        like: a weight (_, C): the pool has its channels, device and dtype.
    """

    def __init__(self, size: int, length: int, top: int | None, like: Tensor):
        super().__init__()
        self.top = top
        self.keys = None if top is None else uniform(like, size, bound=1.0)
        self.prompts = uniform(like, size, length, bound=1.0)

    @property
    def tokens(self) -> Tensor:
        """All prompts, (size length, C)."""
        return self.prompts.flatten(0, 1)

    def chosen(self, x: Tensor, *, at_random: bool) -> tuple[Tensor, Tensor | None]:
        """What tokens (B, N, C) see of the pool's tokens, (B, N, size length) of 0 and 1, and how far it is.

        The distance is the mean of 1 - cosine over tokens and the keys that they chose.
        """
        size, length, _ = self.prompts.shape
        keys, top = self.keys, self.top
        if keys is None or top is None:
            return x.new_ones(1, x.shape[1], size * length), None
        # a choice must not hang on the rounding of half precision
        with without_autocast(x.device):
            near = F.normalize(x, dim=-1) @ F.normalize(keys, dim=-1).to(x.dtype).T
        rank = torch.rand_like(near) if at_random else near
        nearest = rank.topk(top, -1).indices
        seen = torch.zeros_like(near).scatter(-1, nearest, 1.0)
        return seen.repeat_interleave(length, -1), (1 - near.gather(-1, nearest)).mean()


class CoordinatedPools(Prompts):
    """The two pools of a block.

    Args:
        adapter: what it is told.
        like: a weight (_, C): the pools have its channels, device and dtype.
        prefix: tokens before the image's, which take the class token's pool.
    """

    def __init__(self, adapter: TCPA, like: Tensor, prefix: int):
        super().__init__(adapter.dropout)
        tops = adapter.top if adapter.form == "token" else (None, None)
        self.class_pool, self.image_pool = (
            PromptPool(size, length, top, like)
            for size, length, top in zip(adapter.pool, adapter.length, tops, strict=True)
        )
        self.adapter = adapter
        self.prefix = prefix
        self.at_random = adapter.random_epochs > 0
        self.outlet = LossOutlet()

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Choose at random in the first epochs of training."""
        self.at_random = epoch < self.adapter.random_epochs

    def for_images(self, count: int) -> Tensor:
        """(1 or B, P, C), the class token's first."""
        tokens = self.dropped(torch.cat([self.class_pool.tokens, self.image_pool.tokens]), count)
        # over both pools together, as the authors have it
        return fourier(tokens, "both") if self.adapter.fourier else tokens

    def opened(self, x: Tensor) -> Tensor | None:
        """(B or 1, N, P) of 0 and 1; in training the distance of what was chosen is left."""
        if self.adapter.form == "open":
            return None
        at_random = self.training and self.at_random
        by_class, far = self.class_pool.chosen(x[:, : self.prefix], at_random=at_random)
        by_image, farther = self.image_pool.chosen(x[:, self.prefix :], at_random=at_random)
        if self.training and far is not None and farther is not None:
            self.outlet.leave(far + farther)
        own, others = by_class.shape[-1], by_image.shape[-1]
        return torch.cat([F.pad(by_class, (0, others)), F.pad(by_image, (own, 0))], 1)


ROW = AdapterRow(
    TCPA,
    About(
        "Token Coordinated Prompt Attention is Needed for Visual Prompting",
        "Liu, Zou, Hua et al.",
        "ICML 2025",
        "2505.02406",
        "the authors' code, zhoujiahuan1991/ICML2025-TCPA at dce8b3a (no licence: nothing is copied), of "
        "whose files only the form with Fourier prompts runs",
        "any width, heads, tokens and depth, where theirs has ViT-B/16's; tokens beside the class token that "
        "are none of the image's take its pool; options of theirs that one script names (convolutions of the "
        "image) or none (an affine map of the prompts' values, weights by energy, noise) are not here; "
        "dropout and drop path of the network act as they were set, where theirs are off",
        "exact",
    ),
    "class and image tokens attend prompts of pools of their own, each those whose keys are nearest",
    {"pool": (4, 5), "top": (2, 3), "length": (2, 1), "random_epochs": 1},
    frozenset({"vit", "distilled", "registers"}),
)
