"""Sparsifiner: each query of a head sees the keys that a cheap estimate of attention chooses for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import nn

from qna._core.about import About
from qna._core.checks import not_negative, positive
from qna._core.errors import InvalidInput
from qna.adapters._parts.distillation import Distillation
from qna.adapters._parts.vit import blocks_of, chosen_blocks
from qna.adapters.row import Adapter, AdapterRow, AuthorsNames
from qna.adapters.sparsifiner.attention import SparseAttention
from qna.adapters.sparsifiner.blocks import PrunedBlock, ShorteningBlocks
from qna.adapters.sparsifiner.predictor import MaskPredictor
from qna.adapters.sparsifiner.training import ReconstructionLoss, make_dense, whereabouts

__all__ = ["ROW", "SparseAttention", "Sparsifiner"]


@dataclass(frozen=True)
class Sparsifiner(Adapter):
    """Sparse attention by instance in a plain vision transformer (Wei et al., CVPR 2023).

    A `MaskPredictor` in each block estimates attention from its queries and keys at low rank; of N keys every
    image token sees, in each head, the ``ceil(keep_rate N)`` with the largest estimate. Class, distillation
    and register tokens see all, and compete as keys like any other. With rate 1 the network computes what
    it did. The choice passes no gradient on: what trains predictors is a loss of their own.

    Training has two phases. In the first `reconstruction_epochs` attention stays dense and predictors alone
    learn: `WithLosses` brings "attention_reconstruction", and the output has no way back to the weights.
    After them attention is sparse and predictors rest: the network learns from the labels and from what it
    was when that phase began, by "logits_distillation" and "token_distillation"; see
    `qna.adapters._parts.distillation.Distillation`. The authors give each phase learning rates of its own;
    for that, train twice.

    With `token_keep_rate` r below 1 tokens go as well: of M image tokens the j-th of `token_layers` leaves
    ``ceil(r^j M)``, those that the class token pays most. They are made zero, as in the authors' code, which
    saves nothing; or with `drop_tokens` taken out, so that the sequence gets shorter.

    Of attention's ``2 N^2 C`` multiply-adds ``2 keep_rate N^2 C`` are left, and the predictor adds its own.
    Whether that saves time is another matter: docs/adapters.md has the figures.

    Attributes:
        keep_rate: part of all tokens that an image token sees, above 0 and at most 1.
        reduce_tokens: N over the rank of the estimate, rounded down.
        reduce_channels: channels of a head over those that the estimate compares.
        shared_basis: one table for both of the estimate's maps of tokens.
        coefficients: of each row of the estimate's coefficients so many stay; all where there are fewer.
        basis_threshold: entries of the basis that are no larger are 0 in the choice.
        scale: of the estimate's products: one over the root of the number of "heads", as in the authors'
            code, or of the channels of a head, "channels".
        reconstruction_epochs: that fit predictors.
        reconstruction: weight of their loss, which is a sum over the batch, as in the authors' code.
        logits: weight of the loss on logits.
        tokens: weight of the loss on tokens.
        token_keep_rate: above 0 and at most 1; 1 for all.
        token_layers: blocks behind whose attention tokens go, from 0.
        drop_tokens: take tokens out; else they are made zero.
    """

    name: ClassVar[str] = "sparsifiner"

    keep_rate: float = 0.25
    reduce_tokens: int = 6
    reduce_channels: int = 2
    shared_basis: bool = False
    coefficients: int = 8
    basis_threshold: float = 0.02
    scale: Literal["heads", "channels"] = "heads"
    reconstruction_epochs: int = 5
    reconstruction: float = 0.01
    logits: float = 0.5
    tokens: float = 0.5
    token_keep_rate: float = 1.0
    token_layers: tuple[int, ...] = (3, 6, 9)
    drop_tokens: bool = False

    def __post_init__(self):
        super().__post_init__()
        for name in ("keep_rate", "token_keep_rate"):
            if not 0 < (rate := getattr(self, name)) <= 1:
                raise InvalidInput(f"sparsifiner: {name} must be above 0 and at most 1, got {rate!r}")
        for name in ("reduce_tokens", "reduce_channels", "coefficients"):
            positive(self.name, **{name: getattr(self, name)})
        for name in ("basis_threshold", "reconstruction_epochs", "reconstruction", "logits", "tokens"):
            not_negative(self.name, **{name: getattr(self, name)})

    def transform(self, network: Any) -> list[str]:
        """Put a predictor into the attention of every block, and what training needs beside the blocks."""
        blocks = blocks_of(network, self.name)
        prefix, image = network.num_prefix_tokens, network.patch_embed.num_patches
        self._check(network, blocks, prefix + image)
        attentions = []
        for block in blocks:
            old = block.attn
            weight = old.qkv.weight
            scale = (old.num_heads if self.scale == "heads" else old.head_dim) ** -0.5
            predictor = MaskPredictor(old.head_dim, prefix + image, prefix, self, scale)
            predictor.to(device=weight.device, dtype=weight.dtype)
            block.attn = SparseAttention(old, predictor, prefix + image, self).train(old.training)
            attentions.append(block.attn)
        if self.token_keep_rate < 1:
            self._prune(network, blocks, prefix, image)
        losses = ReconstructionLoss(
            "attention_reconstruction", self.reconstruction, (a.outlet for a in attentions)
        )
        losses.put_into(network)
        if self.logits or self.tokens:
            network.distillation = Distillation(
                network,
                logits=self.logits,
                tokens=self.tokens,
                from_epoch=self.reconstruction_epochs,
                make_dense=make_dense,
                whereabouts=whereabouts,
            ).train(network.training)
        return [f"an image token sees {self.kept(prefix + image)} of {prefix + image} tokens in each head"]

    def _check(self, network: Any, blocks: list[Any], tokens: int) -> None:
        if not network.patch_embed.strict_img_size:
            raise InvalidInput(
                "sparsifiner's predictors are of one number of tokens; make the network without "
                "dynamic_img_size"
            )
        if not isinstance(network.patch_drop, nn.Identity):
            raise InvalidInput(
                "sparsifiner's predictors are of one number of tokens; make the network without "
                "patch_drop_rate"
            )
        if tokens < self.reduce_tokens:
            raise InvalidInput(
                f"sparsifiner: reduce_tokens {self.reduce_tokens} leaves no rank of {tokens} tokens"
            )
        for block in blocks:
            if block.attn.head_dim < self.reduce_channels:
                raise InvalidInput(
                    f"sparsifiner: reduce_channels {self.reduce_channels} leaves none of a head's "
                    f"{block.attn.head_dim} channels"
                )
        if self.token_keep_rate < 1:
            chosen_blocks(self.token_layers, len(blocks), self.name)
            if not network.has_class_token:
                raise InvalidInput(
                    "sparsifiner asks a class token which tokens are to go, and this network has none; "
                    "leave token_keep_rate at 1"
                )

    def _prune(self, network: Any, blocks: list[Any], prefix: int, image: int) -> None:
        """Put blocks that lose tokens in the place of those from the first of `token_layers` on."""
        layers = chosen_blocks(self.token_layers, len(blocks), self.name)
        left: int | None = None
        for i, block in enumerate(blocks):
            keep = math.ceil(self.token_keep_rate ** (layers.index(i) + 1) * image) if i in layers else None
            if keep is not None or left is not None:
                network.blocks[i] = PrunedBlock(block, prefix, left, keep, drop=self.drop_tokens)
            left = left if keep is None else keep
        if self.drop_tokens:
            network.blocks = ShorteningBlocks(*network.blocks).train(network.blocks.training)

    def reconstructs(self, epoch: int) -> bool:
        """Whether training epoch `epoch`, from 0, fits predictors."""
        return epoch < self.reconstruction_epochs

    def kept(self, tokens: int) -> int:
        """How many of so many keys an image token sees."""
        return math.ceil(self.keep_rate * tokens)


ROW = AdapterRow(
    Sparsifiner,
    About(
        "Sparsifiner: Learning Sparse Instance-Dependent Attention for Efficient Vision Transformers",
        "Wei, Duke, Jiang et al.",
        "CVPR 2023",
        "2303.13755",
        "the abstract; the authors' code, lim142857/Sparsifiner at 9a11e26 (MIT)",
        "tokens beside the class token that are none of the image's see all keys too, and are never pruned; "
        "with a rate of 1 tokens are not pruned at all, where the authors' code then leaves one key out; the "
        "teacher of the first phase is the network itself, which rests in it; one schedule of learning rates "
        "for a run",
        "exact",
    ),
    "each query of a head sees the keys that an estimate of attention at low rank chooses",
    {"keep_rate": 0.4, "reduce_tokens": 3, "reconstruction_epochs": 0},
    frozenset({"vit", "distilled", "registers"}),
    # modules are called as the authors call them
    AuthorsNames(),
    {
        "every_parameter_gets_a_gradient": "predictors rest while the network learns, and the network while "
        "they do",
    },
    rests=True,
)
