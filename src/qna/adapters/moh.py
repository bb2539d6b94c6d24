"""MoH: every token chooses which heads speak for it, and heads that none chose are left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core.about import About
from qna._core.checks import not_negative
from qna._core.errors import InvalidInput
from qna.adapters._parts.around import AroundAttention
from qna.adapters._parts.attention import attended, finished, projected
from qna.adapters._parts.vit import blocks_of, chosen_blocks
from qna.adapters.row import Adapter, AdapterRow
from qna.parts.attend import transformed
from qna.parts.head_router import HeadRouter, NormRouter, RoutedHeads, noting_heads, why_no_routes
from qna.parts.losses import ReturnLosses
from qna.parts.plain import is_plain
from qna.parts.protocols import GatesHeads

# fewer tokens than this, and copying the weights of the heads that speak takes what the others would have
_FEW_TOKENS = 64
# more of the tokens, and bringing a head's own queries together takes what the others would have
_MOST_QUERIES = 0.6


@dataclass(frozen=True)
class MoH(Adapter):
    """Let every token choose among the heads of an attention (Jin et al., arXiv 2410.11842).

    The first `shared_heads` heads speak for all tokens, and of the others each token chooses `routed_heads`;
    gates that depend on the token multiply what the heads say, before they are joined. Routers read the
    normed input of the attention; `qna.parts.head_router.HeadRouter` has the equations, and
    `qna.parts.head_router.NormRouter` those of ``router="norm"``, which has no parameters. Every token has
    its own choice, class, distillation and register tokens among them.

    In training a network with `balance` returns `WithLosses` with "balance", that weight times the mean over
    the layers of `qna.parts.head_router.balance_loss`, in which all tokens of the batch count.

    In evaluation a head that no token of the call chose costs nothing: neither its queries, keys and values
    nor its attention nor its columns of the projection are computed; with ``router="norm"`` its queries are,
    as they decide. Of the other routed heads attention is computed for as many queries of an image as the
    busiest of them speaks for, where that is at most six tenths. The result is what masking gives.

    All heads are computed in training, in graphs that are compiled or exported, of calls of fewer than 64
    tokens, where tools look on or the attention has a norm or gate of its own before its projection, and in
    networks other than timm's plain vision transformers: there it is every mixer of `qna.mixers` that takes
    gates on its heads which gets one.

    Adapters of different layers may follow one another, so that layers may have other counts.

    Attributes:
        shared_heads: of every layer, from 0.
        routed_heads: that a token chooses, from 0; all other heads are never chosen where it is 0, so that
            all must be shared.
        balance: weight of the balance loss; 0 for none. The published models have 0.01.
        router: "learned", or "norm": queries that are long choose.
        layers: attentions that get a router, from 0 in the network's order; None for all that can.
    """

    name: ClassVar[str] = "moh"
    beside: ClassVar[frozenset[str]] = frozenset({"moh"})

    shared_heads: int
    routed_heads: int
    balance: float = 0.01
    router: Literal["learned", "norm"] = "learned"
    layers: tuple[int, ...] | None = None

    def __post_init__(self):
        super().__post_init__()
        not_negative(self.name, balance=self.balance)

    def transform(self, network: Any) -> list[str]:
        """Put routed attention, or gates on mixers, into each of `layers`."""
        mixers = _gated_mixers(network)
        return self._into_mixers(network, mixers) if mixers else self._into_vit(network)

    def _into_vit(self, network: Any) -> list[str]:
        blocks = blocks_of(network, self.name, also=(RoutedSelfAttention,))
        chosen = chosen_blocks(self.layers, len(blocks), self.name)
        for i in chosen:
            if isinstance(blocks[i].attn, RoutedSelfAttention):
                raise InvalidInput(f"moh: block {i} has a router")
            self._check(f"block {i}", blocks[i].attn.num_heads)
        routers = []
        for i in chosen:
            old = blocks[i].attn
            routers.append(self._router_of(old))
            blocks[i].attn = RoutedSelfAttention(old, routers[-1]).train(old.training)
        self._return_losses(network, routers)
        return []

    def _into_mixers(self, network: nn.Module, mixers: dict[str, Any]) -> list[str]:
        if self.router == "norm":
            raise InvalidInput(
                'moh: router="norm" reads the queries of timm\'s plain vision transformers alone'
            )
        names = list(mixers)
        for i in (chosen := chosen_blocks(self.layers, len(names), self.name)):
            mixer = mixers[names[i]]
            if self.layers is not None and (why := mixer.why_no_head_gate()):
                raise InvalidInput(f"moh: layer {i}, {names[i]}, takes no gates on its heads: {why}")
            if mixer.head_gate is not None:
                raise InvalidInput(f"moh: layer {i}, {names[i]}, has a gate on its heads")
        able = [names[i] for i in chosen if not mixers[names[i]].why_no_head_gate()]
        for name in able:
            self._check(name, mixers[name].num_heads)
        routers = []
        for name in able:
            mixer, like = mixers[name], next(mixers[name].parameters())
            counts = {"shared": self.shared_heads, "routed": self.routed_heads}
            router = RoutedHeads(mixer.dim, mixer.num_heads, **counts, balanced=self.balance > 0)
            router.to(device=like.device, dtype=like.dtype).train(mixer.training)
            mixer.gate_heads(router)
            routers.append(router)
        self._return_losses(network, routers)
        return [f"{names[i]}: as it was, {mixers[names[i]].why_no_head_gate()}" for i in chosen
                if names[i] not in able]  # fmt: skip

    def _check(self, place: str, heads: int) -> None:
        if why := why_no_routes(heads, self.shared_heads, self.routed_heads):
            raise InvalidInput(f"moh: {place}: {why}")

    def _router_of(self, attention: Any) -> HeadRouter | NormRouter:
        weight, heads = attention.qkv.weight, attention.num_heads
        counts = {"shared": self.shared_heads, "routed": self.routed_heads, "balanced": self.balance > 0}
        if self.router == "norm":
            return NormRouter(heads, **counts)
        router = HeadRouter(weight.shape[1], heads, **counts)
        return router.to(device=weight.device, dtype=weight.dtype)

    def _return_losses(self, network: nn.Module, routers: list[Any]) -> None:
        if self.balance and self.routed_heads:
            ReturnLosses("balance", self.balance, routers).put_into(network)


class RoutedSelfAttention(AroundAttention):
    """timm's attention whose heads speak for the tokens that chose them; all other parts are its own.

    Args:
        attention: whose place it takes.
        router: of its heads.
    """

    def __init__(self, attention: Any, router: HeadRouter | NormRouter):
        super().__init__(attention)
        self.router = router

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """(B, N, C) -> the same."""
        if attn_mask is not None or is_causal:
            raise InvalidInput("moh takes no mask of tokens")
        if not self._may_skip(x):
            return self._masked(x)
        q = None
        if isinstance(self.router, NormRouter):
            q = self._rows(x, self.qkv.weight[: self.attn_dim], self._bias(slice(self.attn_dim)))
            gates = self.router(q)
        else:
            gates = self.router(x)
        speaking = (gates != 0).flatten(0, -2).any(0).nonzero()[:, 0]
        # of all heads no weight is copied
        kept = speaking if 0 < len(speaking) < self.num_heads else slice(None)
        return self._of_speaking(x, gates, kept, q)

    def _masked(self, x: Tensor) -> Tensor:
        """All heads are computed, and gates that are 0 close them."""
        if isinstance(self.router, NormRouter):
            q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim)).unbind(2)
            gates = self.router(q)
            q, k, v = (t.transpose(1, 2) for t in (self.q_norm(q), self.k_norm(k), v))
        else:
            gates = self.router(x)
            q, k, v = projected(self, x)
        y = attended(self, q, k, v)
        return finished(self, y * gates.transpose(1, 2)[..., None].to(y.dtype), x)

    def _of_speaking(self, x: Tensor, gates: Tensor, kept: Tensor | slice, q: Tensor | None) -> Tensor:
        """The same of the heads `kept` alone; `q` (B, N, heads, d) where queries are there already."""
        # rows of the packed map
        parts = (3, self.num_heads, self.head_dim)
        first = 0 if q is None else 1

        def rows(packed: Tensor) -> Tensor:
            return packed.unflatten(0, parts)[first:, kept].flatten(0, 2)

        bias = None if self.qkv.bias is None else rows(self.qkv.bias)
        packed = (
            F.linear(x, rows(self.qkv.weight), bias).unflatten(-1, (3 - first, -1, self.head_dim)).unbind(2)
        )
        query, key, value = packed if q is None else (q[:, :, kept], *packed)
        query, key, value = (t.transpose(1, 2) for t in (self.q_norm(query), self.k_norm(key), value))
        gates = gates[..., kept]
        y = self._of_own_queries(query, key, value, gates != 0).transpose(1, 2)
        y = y * gates[..., None].to(y.dtype)
        columns = self.proj.weight.unflatten(1, parts[1:])[:, kept].flatten(1)
        return self.proj_drop(F.linear(y.flatten(2), columns, self.proj.bias))

    def _of_own_queries(self, q: Tensor, k: Tensor, v: Tensor, open_for: Tensor) -> Tensor:
        """What heads attend, (B, heads, N, d), where `open_for` (B, N, heads) says so; elsewhere anything.

        Behind the last head that speaks for many tokens heads get as many queries as the busiest of them has.
        """
        count = open_for.sum(1)
        many = (count > _MOST_QUERIES * open_for.shape[1]).any(0).nonzero()
        first = int(many.max()) + 1 if len(many) else 0
        if first == count.shape[1]:
            return attended(self, q, k, v)
        most = int(count[:, first:].max())
        places = open_for[..., first:].transpose(1, 2).float().topk(most, -1, sorted=False).indices
        places = places[..., None].expand(-1, -1, -1, q.shape[-1])
        own = attended(self, q[:, first:].gather(2, places), k[:, first:], v[:, first:])
        y = torch.zeros_like(q[:, first:]).scatter(2, places, own)
        return torch.cat([attended(self, q[:, :first], k[:, :first], v[:, :first]), y], 1) if first else y

    def _rows(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias).unflatten(-1, (-1, self.head_dim))

    def _bias(self, rows: slice) -> Tensor | None:
        return None if self.qkv.bias is None else self.qkv.bias[rows]

    def _may_skip(self, x: Tensor) -> bool:
        """Whether heads may be left out: a choice that depends on data, of parts that nobody watches."""
        return (
            not self.training
            and isinstance(x, Tensor)
            # asked before sizes, which may be open in a graph
            and not torch.compiler.is_compiling()
            and torch._C._get_tracing_state() is None
            and x.shape[0] * x.shape[1] >= _FEW_TOKENS
            and not transformed()
            and not x.is_meta
            and is_plain(self.qkv, nn.Linear)
            and is_plain(self.proj, nn.Linear)
            and isinstance(self.norm, nn.Identity)
            and self.gate is None
        )


@torch.no_grad()
def head_use(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """The share of tokens that each head of a network with `MoH` speaks for.

    Args:
        network: as the adapter left it, or one of `qna.models.MOH_VIT`.
        images: (B, 3, H, W).

    Returns:
        of each router by its name, (heads,): 1 for the shared heads, and 0 for those that nobody chose.

    Raises:
        InvalidInput: for a network without routers.
    """
    with noting_heads(network) as noted:
        if not noted:
            raise InvalidInput("the network holds no router of heads; apply moh first")
        network(images)
    return {name: torch.stack(calls).mean(0) for name, calls in noted.items() if calls}


def _gated_mixers(network: nn.Module) -> dict[str, Any]:
    """Mixers with heads of a network, by name, in its order."""
    return {name: m for name, m in network.named_modules() if isinstance(m, GatesHeads)}


ROW = AdapterRow(
    MoH,
    About(
        "MoH: Multi-Head Attention as Mixture-of-Head Attention",
        "Jin, Zhu, Yuan, Yan",
        "arXiv",
        "2410.11842",
        "the authors' code, SkyworkAI/MoH at 2cefd57 (Apache-2.0)",
        "the authors build TransNeXt, DiT and LLaMA3 with it; here it is also put around networks that are "
        "there. They compute every head and mask; here heads that no token chose are left out in evaluation. "
        'Attention of one shared head works, where theirs fails. What router="norm" does in training is ours',
        "exact",
    ),
    "every token chooses which heads of the attention speak for it, and heads that none chose cost nothing",
    {"shared_heads": 1, "routed_heads": 1},
    frozenset({"vit", "distilled", "registers", "qna_vit"}),
)
