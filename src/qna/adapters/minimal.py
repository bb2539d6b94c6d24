"""Reduced attention: matrices of a vision transformer's attention collapsed, made symmetric or left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core.checks import positive
from qna._core.errors import InvalidInput
from qna.adapters._parts.around import AroundBlock
from qna.adapters._parts.vit import blocks_of, chosen_blocks
from qna.adapters.row import Adapter, AdapterRow
from qna.mixers import MIXERS
from qna.parts.attend import transformed
from qna.parts.minimal_attention import FULL, MinimalAttention, of_one_size
from qna.parts.minimal_folding import fold_into


@dataclass(frozen=True)
class MinimalForm(Adapter):
    """Turn a plain vision transformer's attention into one of fewer matrices (Bermeitinger et al., 2024).

    `qna.parts.minimal_attention.MinimalAttention` has the equations. What can be folded is, in double
    precision: with all heads, collapsed queries and keys, and collapsed values, compute what the network did,
    to rounding. Symmetric queries and keys begin anew unless the network's own product has a triangle;
    without values, values and output are dropped. `qna.adapters.applied` tells which, block by block, with
    the parameters before and after: a collapsed matrix of each head is h C^2 where two matrices were 2 C^2,
    so that from two heads on, collapsing alone saves nothing.

    What is replaced leaves the state dict. Masks and ``is_causal`` pass as they do in timm's attention.

    Attributes:
        qk: "full", "collapsed" or "symmetric".
        value: "full", "collapsed" or "none".
        heads: of the reduced attention; None for the network's. With another number, projections are folded
            all the same, as a place to begin: softmaxes are then others.
        mlp: whether blocks keep their MLP, with its norm, scale and skip path.
        layers: blocks that are reduced; None for all.
    """

    name: ClassVar[str] = "minimal"

    qk: Literal["full", "collapsed", "symmetric"] = "collapsed"
    value: Literal["full", "collapsed", "none"] = "none"
    heads: int | None = None
    mlp: bool = True
    layers: tuple[int, ...] | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.heads is not None:
            positive(self.name, heads=self.heads)
        if (self.qk, self.value, self.mlp, self.heads) == (FULL, FULL, True, None):
            raise InvalidInput(
                "minimal: with full queries, keys and values, and its MLP, a block stays as it is"
            )

    def transform(self, network: Any) -> list[str]:
        """Reduce each of `layers`; a sentence for each."""
        blocks = blocks_of(network, self.name)
        chosen = chosen_blocks(self.layers, len(blocks), self.name)
        reduced = {i: self._reduced(i, blocks[i]) for i in chosen}
        told = []
        for i, (attention, sentences) in reduced.items():
            before = _count(blocks[i])
            blocks[i].attn = attention
            if not self.mlp:
                network.blocks[i] = AttentionBlock(blocks[i])
                sentences.append("MLP dropped")
            after = _count(network.blocks[i])
            told.append(f"blocks.{i}: {', '.join(sentences)}; {after:,} parameters, where it had {before:,}")
        return told

    def _reduced(self, number: int, block: Any) -> tuple[MinimalSelfAttention, list[str]]:
        """What stands for a block's attention, and what became of its weights."""
        old = block.attn
        dim = old.qkv.in_features
        between = (old.q_norm, old.k_norm, old.norm)
        if old.gate is not None or not all(isinstance(norm, nn.Identity) for norm in between):
            raise InvalidInput(
                f"minimal: attention of block {number} has norms or gates of its own, between which matrices "
                "cannot be folded"
            )
        if old.attn_dim != dim or old.proj.out_features != dim:
            raise InvalidInput(
                f"minimal: attention of block {number} has {old.attn_dim} channels for {dim}, where reduced "
                "attention needs as many"
            )
        heads = old.num_heads if self.heads is None else self.heads
        full = _full(old, heads)
        # biases that are only the full form's fall away with it
        bias = old.qkv.bias is not None or old.proj.bias is not None
        at = {"device": old.qkv.weight.device, "dtype": old.qkv.weight.dtype}
        attention = MinimalSelfAttention(old, heads, qk=self.qk, value=self.value, bias=bias).to(**at)
        sentences = fold_into(attention, full)
        if heads != old.num_heads:
            sentences.append(f"{heads} softmax{'es' * (heads > 1)} for {old.num_heads}")
        return attention.train(old.training), sentences


class MinimalSelfAttention(MinimalAttention):
    """Reduced attention with the dropouts of timm's, in whose place it stands.

    Args:
        attention: timm's.
        num_heads: of the reduced one.
        qk: form of queries and keys.
        value: form of values and output.
        bias: whether linear maps have biases.
    """

    def __init__(self, attention: Any, num_heads: int, *, qk: str, value: str, bias: bool):
        super().__init__(attention.qkv.in_features, num_heads=num_heads, qk=qk, value=value, bias=bias)
        self.fused_attn = attention.fused_attn
        self.attn_drop, self.proj_drop = attention.attn_drop, attention.proj_drop

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """(B, N, C) -> the same; masks as torch's attention takes them."""
        query, key, value = self.projected(x)
        # forward-mode derivatives are of what is written out alone
        if self.fused_attn and not transformed():
            y = F.scaled_dot_product_attention(
                *of_one_size(query, key, value),
                attn_mask=attn_mask,
                dropout_p=self.attn_drop.p if self.training else 0.0,
                is_causal=is_causal,
                scale=self.scale,
            )
        else:
            y = self.attn_drop(_masked(query * self.scale @ key.mT, attn_mask, is_causal).softmax(-1)) @ value
        return self.proj_drop(self.joined(y))


class AttentionBlock(AroundBlock):
    """timm's block without its MLP: ``x + attention(norm(x))``.

    Args:
        block: whose place it takes.
    """

    def __init__(self, block: Any):
        super().__init__(block)
        del self.norm2, self.mlp, self.ls2, self.drop_path2

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """(B, N, C) -> the same."""
        attended = self.attn(self.norm1(x), attn_mask=attn_mask, is_causal=is_causal)
        return self.with_attention(x, attended)


@torch.no_grad()
def _full(old: Any, heads: int) -> MinimalAttention:
    """timm's attention in the full form, with all biases."""
    weight = old.qkv.weight
    full = MinimalAttention(weight.shape[1], num_heads=heads, qk=FULL, value=FULL)
    full.to(device=weight.device, dtype=weight.dtype)
    layers = (full.q, full.k, full.value)
    for layer, part in zip(layers, weight.chunk(3), strict=True):
        layer.weight.copy_(part)
    full.out.weight.copy_(old.proj.weight)
    biases = (None,) * 3 if old.qkv.bias is None else old.qkv.bias.chunk(3)
    for layer, bias in zip((*layers, full.out), (*biases, old.proj.bias), strict=True):
        if bias is None:
            layer.bias.zero_()
        else:
            layer.bias.copy_(bias)
    return full


def _masked(scores: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor:
    if is_causal:
        n = scores.shape[-1]
        mask = torch.ones(n, n, dtype=torch.bool, device=scores.device).tril()
    if mask is None:
        return scores
    return scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


ROW = AdapterRow(
    MinimalForm,
    MIXERS["MinimalAttention2d"].about,
    "queries and keys, and values and output, as one matrix each, symmetric or left out, with or without "
    "MLPs",
    {"value": "collapsed", "mlp": False},
    frozenset({"vit", "distilled", "registers"}),
    exempt={"keeps_names": "matrices that are folded leave the state dict, which is what it is for"},
)
