"""Learned tokens that a frozen vision transformer attends beside its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core.checks import positive
from qna._core.errors import InvalidInput
from qna.adapters._parts.around import AroundBlock
from qna.adapters._parts.attention import attended, finished, projected, weights_of
from qna.adapters.row import added_names

# what a Fourier transform of prompts (P, C) runs over
Over = Literal["both", "tokens", "channels"]
_DIMS = {"both": (-2, -1), "tokens": (-2,), "channels": (-1,)}


class Prompts(nn.Module):
    """Prompts of a block.

    Args:
        dropout: part of their numbers that is dropped in training, drawn anew for each image.
    """

    def __init__(self, dropout: float):
        super().__init__()
        self.drop = nn.Dropout(dropout)

    def for_images(self, count: int) -> Tensor:
        """The tokens (1, P, C) that every image gets, or (B, P, C) where dropout makes them differ."""
        raise NotImplementedError

    def opened(self, x: Tensor) -> Tensor | None:
        """How far each of the tokens (B, N, C) sees each prompt: (B or 1, N, P); None where all see all.

        Args:
            x: the block's input, before its norm.
        """
        return None

    def dropped(self, tokens: Tensor, count: int) -> Tensor:
        """Tokens (P, C) for so many images, after dropout."""
        varies = self.drop.training and self.drop.p > 0
        return self.drop(tokens.expand(count, -1, -1) if varies else tokens[None])


class PromptTokens(Prompts):
    """Prompts that all tokens see.

    Args:
        count: of them.
        like: a weight (_, C): they have its channels, device and dtype.
        bound: they begin uniformly in [-bound, bound].
        dropout: as `Prompts`.
        transformed: how many, from the first, go through the real part of a Fourier transform.
        over: what it runs over.
    """

    def __init__(
        self,
        count: int,
        like: Tensor,
        *,
        bound: float,
        dropout: float,
        transformed: int = 0,
        over: Over = "both",
    ):
        super().__init__(dropout)
        self.tokens = uniform(like, count, bound=bound)
        self.transformed = transformed
        self.over: Over = over

    def for_images(self, count: int) -> Tensor:
        """(1 or B, P, C)."""
        tokens = self.dropped(self.tokens, count)
        if not self.transformed:
            return tokens
        # dropout comes first, as the authors have it
        waves = fourier(tokens[:, : self.transformed], self.over)
        return torch.cat([waves, tokens[:, self.transformed :]], 1)


class PromptedBlock(AroundBlock):
    """timm's block whose attention sees prompts beside its tokens; all other parts are the block's own.

    What a block would make of the prompts themselves, which the next one replaces, is not computed.

    Args:
        block: whose place it takes.
        prompts: of it.
    """

    def __init__(self, block: Any, prompts: Prompts):
        super().__init__(block)
        self.prompts = prompts.train(block.training)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """(B, N, C) -> the same."""
        refuse_masks(attn_mask, is_causal)
        opened = self.prompts.opened(x)
        mixed = self._attend(self.norm1(x), self.norm1(self.prompts.for_images(x.shape[0])), opened)
        return self.with_mlp(self.with_attention(x, mixed))

    def _attend(self, x: Tensor, prompts: Tensor, opened: Tensor | None) -> Tensor:
        """Attention of normed tokens to themselves and to normed prompts, (B, N, C)."""
        q, k, v = projected(self.attn, x)
        _, prompt_k, prompt_v = (
            part.expand(x.shape[0], -1, -1, -1) for part in projected(self.attn, prompts)
        )
        k = torch.cat([k, prompt_k], 2)
        if opened is None:
            y = attended(self.attn, q, k, torch.cat([v, prompt_v], 2))
        else:
            y, weights = apart(self.attn, q, k, v)
            # after the softmax and not normalised again: what is closed still takes its part of the sum
            y = y + (weights * opened[:, None]) @ prompt_v
        return finished(self.attn, y, x)


class PassingBlock(AroundBlock):
    """timm's block that takes prompts among its tokens, behind the prefix, or lets them go after it.

    Args:
        block: whose place it takes.
        prefix: tokens before the image's.
        prompts: what comes in; None where they are in already.
        leaving: how many go out.
    """

    def __init__(self, block: Any, prefix: int, prompts: Prompts | None, leaving: int):
        super().__init__(block)
        self.prefix = prefix
        self.prompts = None if prompts is None else prompts.train(block.training)
        self.leaving = leaving

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """(B, N, C) -> (B, N', C)."""
        refuse_masks(attn_mask, is_causal)
        if self.prompts is not None:
            prompts = self.prompts.for_images(x.shape[0]).expand(x.shape[0], -1, -1)
            x = torch.cat([x[:, : self.prefix], prompts, x[:, self.prefix :]], 1)
        x = self.with_mlp(self.with_attention(x, self.attn(self.norm1(x))))
        return torch.cat([x[:, : self.prefix], x[:, self.prefix + self.leaving :]], 1) if self.leaving else x


def apart(attention: Any, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """What queries take of the first keys, and the softmax's weights of the others.

    The weights of all are formed only where attention drops some. Else one more channel of the values, 1 for
    the others, brings the sum of their weights out of fused attention, and a softmax among them divides it.

    Args:
        attention: timm's.
        q: (B, heads, N, D).
        k: (B, heads, M + P, D).
        v: values of the first, (B, heads, M, D).

    Returns:
        (B, heads, N, D) and (B, heads, N, P).
    """
    first, channels, others = v.shape[2], v.shape[3], k.shape[2] - v.shape[2]
    if attention.training and attention.attn_drop.p:
        weights = weights_of(attention, q, k)
        return weights[..., :first] @ v, weights[..., first:]
    marks = F.pad(v.new_ones(others, 1), (channels, 0)).expand(*v.shape[:2], -1, -1)
    # fused attention wants as many channels of queries and keys
    q_wide, k_wide, values = F.pad(q, (0, 1)), F.pad(k, (0, 1)), torch.cat([F.pad(v, (0, 1)), marks], 2)
    found = attended(attention, q_wide, k_wide, values)
    among = (q * attention.scale @ k[:, :, first:].transpose(-2, -1)).softmax(-1)
    return found[..., :channels], among * found[..., channels:]


def refuse_masks(attn_mask: Tensor | None, is_causal: bool) -> None:
    """Raise `InvalidInput` where a block is given a mask of tokens, which says nothing of prompts."""
    if attn_mask is not None or is_causal:
        raise InvalidInput("a network with prompts takes no mask of tokens")


def uniform(like: Tensor, *shape: int, bound: float) -> nn.Parameter:
    """A parameter (*shape, C), uniform in [-bound, bound], with the channels of the weight `like` (_, C)."""
    return nn.Parameter(like.new_empty(*shape, like.shape[1]).uniform_(-bound, bound))


def fourier(tokens: Tensor, over: Over) -> Tensor:
    """The real part of the Fourier transform of tokens (..., P, C), not scaled."""
    if not tokens.numel():
        # of no image, which libraries refuse
        return tokens
    # there is none in half precision
    wide = tokens.float() if tokens.itemsize < 4 else tokens
    return torch.fft.fftn(wide, dim=_DIMS[over]).real.to(tokens.dtype)


def image_bound(network: Any) -> float:
    """Where VPT's prompts begin: Glorot's bound of a map from a patch's numbers to C channels."""
    weight = network.patch_embed.proj.weight
    return math.sqrt(6 / (weight[0].numel() + weight.shape[0]))


def freeze_backbone(network: Any) -> str:
    """Let everything keep its weights but the classifier and what adapters brought; say how much it is."""
    heads = network.get_classifier()
    learning = {
        id(p) for head in (heads if isinstance(heads, Sequence) else (heads,)) for p in head.parameters()
    }
    brought = added_names(network)
    frozen = 0
    for name, parameter in network.named_parameters():
        if id(parameter) not in learning and name not in brought:
            parameter.requires_grad_(False)
            frozen += parameter.numel()
    return f"{frozen:,} numbers of the network keep their values; prompts and classifier are trained"


def check_prompts(adapter: str, dropout: float, **counts: int) -> None:
    """Raise `InvalidInput` for a number of prompts below 1, or a dropout that is no part of a whole."""
    positive(adapter, **counts)
    if not 0 <= dropout < 1:
        raise InvalidInput(f"{adapter}: dropout must be in [0, 1), got {dropout!r}")
