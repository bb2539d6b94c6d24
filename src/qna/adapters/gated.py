"""Gated attention: a sigmoid of the attention's input closes what a head has to say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from qna._core.errors import InvalidInput
from qna.adapters._parts.around import AroundAttention
from qna.adapters._parts.attention import attended
from qna.adapters._parts.vit import blocks_of, chosen_blocks
from qna.adapters.row import Adapter, AdapterRow
from qna.mixers import MIXERS
from qna.parts.head_gate import Gates, HeadGate


@dataclass(frozen=True)
class GatedAttention(Gates, Adapter):
    """Put gates into the attention of a plain vision transformer (Qiu et al., NeurIPS 2025).

    A gate is ``sigmoid(x W)`` of the normed input x, for each position and head, without bias, and stands
    after the heads' output (G1 of the paper), on values (G2), keys (G3), queries (G4) or after the projection
    (G5). Queries and keys are gated as attention takes them, after a norm of their own where they have one.

    The weights that were there keep their names. No gate is open at first: with W = 0 the heads' output is
    halved. A large `bias` opens them, from which on a trained network computes what it did; see
    `qna.parts.head_gate.Gates` for the other options.

    Attributes:
        layers: blocks that get them; None for all.
    """

    name: ClassVar[str] = "gated"
    beside: ClassVar[frozenset[str]] = frozenset({"evit", "vpt", "vfpt", "tcpa"})

    layers: tuple[int, ...] | None = None

    def __post_init__(self):
        Adapter.__post_init__(self)
        super().__post_init__()

    def transform(self, network: Any) -> list[str]:
        """Put gated attention into each of `layers`."""
        blocks = blocks_of(network, self.name)
        chosen = chosen_blocks(self.layers, len(blocks), self.name)
        if any(blocks[i].attn.gate is not None for i in chosen):
            raise InvalidInput("gated: the network's attention has gates of its own")
        if self.position == "projected" and any(
            blocks[i].attn.proj.out_features != blocks[i].attn.attn_dim for i in chosen
        ):
            raise InvalidInput(
                "gated: what is projected has no heads, as its channels are not the attention's"
            )
        for i in chosen:
            old = blocks[i].attn
            weight = old.qkv.weight
            gate = HeadGate(
                weight.shape[1],
                old.num_heads,
                old.head_dim,
                **self.options(),
            ).to(device=weight.device, dtype=weight.dtype)
            blocks[i].attn = GatedSelfAttention(old, gate, self.position).train(old.training)
        return []


class GatedSelfAttention(AroundAttention):
    """timm's attention with gates in one place; all other parts are the attention's own.

    Args:
        attention: whose place it takes.
        gates: of its heads.
        position: of `POSITIONS`.
    """

    def __init__(self, attention: Any, gates: HeadGate, position: str):
        super().__init__(attention)
        self.gates = gates
        self.position = position

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """(B, N, C) -> the same."""
        q, k, v = self.projected(x)
        if attn_mask is None and not is_causal:
            return self.finished(attended(self, q, k, v), x)
        y = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=attn_mask,
            dropout_p=self.attn_drop.p if self.training else 0.0,
            is_causal=is_causal,
            scale=self.scale,
        )
        return self.finished(y, x)

    def projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, heads, N, head_dim) of tokens (B, N, C), gated where gates stand."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim)).unbind(2)
        q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (
            self.gates(x, part) if self.position == name else part
            for name, part in (("query", q), ("key", k), ("value", v))
        )
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def finished(self, y: Tensor, x: Tensor) -> Tensor:
        """From the heads' output (B, heads, N, head_dim) for tokens `x` to what comes out, (B, N, C)."""
        y = y.transpose(1, 2)
        if self.position == "output":
            y = self.gates(x, y)
        y = self.proj(self.norm(y.flatten(2)))
        if self.position == "projected":
            y = self.gates(x, y.unflatten(-1, (self.num_heads, -1))).flatten(2)
        return self.proj_drop(y)


ROW = AdapterRow(
    GatedAttention,
    replace(
        MIXERS["GatedCausalAttention1d"].about,
        read="the abstract; the authors' code, qiuzh20/gated_attention (MIT)",
        differs="the authors gate the attention of language models; here it is a vision transformer's, and "
        "gates have maps of their own where theirs share one with the queries",
        status="formula",
    ),
    "a sigmoid of the attention's input closes what a head has to say, in one of five places",
    {"per": "channel", "bias": 1.0},
    frozenset({"vit", "distilled", "registers"}),
)
