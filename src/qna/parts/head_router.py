"""Routers that choose which heads of an attention speak for a token: Mixture-of-Head attention."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from qna._core.errors import InvalidInput
from qna.parts.linear import apply_linear
from qna.parts.losses import LossOutlet


class ChoosesHeads(nn.Module):
    """What both routers do: the first `shared` heads always speak, and each token chooses `routed` others.

    Args:
        heads: of the attention.
        shared: hs of them, the first.
        routed: hr, how many of the other E = heads - shared a token chooses.
        balanced: whether the balance loss of every call in training is left, see `balance_loss`.

    Raises:
        InvalidInput: counts that do not go into the heads, or heads that nobody could ever choose.
    """

    def __init__(self, heads: int, *, shared: int, routed: int, balanced: bool = False):
        super().__init__()
        if why := why_no_routes(heads, shared, routed):
            raise InvalidInput(why)
        self.heads, self.shared, self.routed = heads, shared, routed
        self.balanced = balanced
        self._outlet = LossOutlet()
        # where `noting_heads` finds the share of tokens that each head spoke for
        self.noted: list[Tensor] | None = None

    def take(self) -> list[Tensor]:
        """The balance loss of the last call in training, which is taken away."""
        return self._outlet.take()

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        return f"heads={self.heads}, shared={self.shared}, routed={self.routed}"

    def _choose(self, p: Tensor) -> Tensor:
        """Which heads the tokens choose by their probabilities p (..., E): 1 and 0, without a gradient."""
        mask = torch.zeros_like(p, requires_grad=False)
        mask = mask.scatter(-1, p.detach().topk(self.routed, -1).indices, 1.0)
        if self.balanced and self.training:
            self._outlet.leave(balance_loss(p, mask))
        return mask

    def _tell(self, gates: Tensor) -> Tensor:
        """The gates (..., heads), noted where somebody asks."""
        if self.noted is not None:
            self.noted.append((gates.detach() != 0).float().flatten(0, -2).mean(0))
        return gates


class HeadRouter(ChoosesHeads):
    """Gates of Mixture-of-Head attention (Jin et al., arXiv 2410.11842) for every token and head.

    Of the attention's normed input x, with E = heads - hs::

        p       = softmax(wg x)                                    E probabilities, T the hr largest
        routed_j = alpha_1 hr p_j 1[j in T] / sum_T p
        shared_i = alpha_0 hs softmax(wg_1 x)_i                    alpha_0 where hs = 1
        alpha   = 2 softmax(wg_0 x)                                (1, 1) where hs or hr is 0

    The gates of a token sum to ``alpha_0 hs + alpha_1 hr``; hs + hr of them are not 0. The constants 2, hs
    and hr are the released code's: a router of zeros leaves the heads that it chooses as they are. No map has
    a bias. It costs ``N C (E + 2 + hs)`` multiply-adds for N tokens; a gradient reaches wg through p alone.

    The authors' layer computes nothing where hs = 1 and hr = 0, for lack of wg_1 (their diffusion models also
    where hs = 1 and hr > 0); here the gate of a head that is alone is 1.

    Args:
        dim: channels C of the attention's input.
        heads: of the attention.
        shared: hs, heads that all tokens share, the first.
        routed: hr, how many of the others a token chooses.
        balanced: whether the balance loss is left in training.
    """

    def __init__(self, dim: int, heads: int, *, shared: int, routed: int, balanced: bool = False):
        super().__init__(heads, shared=shared, routed=routed, balanced=balanced)
        for name, outputs in {
            "wg": heads - shared if routed else 0,
            "wg_0": 2 if routed and shared else 0,
            "wg_1": shared if shared > 1 else 0,
        }.items():
            layer = nn.Linear(dim, outputs, bias=False) if outputs else None
            self.add_module(name, layer)
            if layer is not None:
                # the authors cut at +-2, which is a hundred deviations
                nn.init.normal_(layer.weight, std=0.02)

    def gates(self, x: Tensor) -> Tensor:
        """Tokens (..., C) -> gates (..., heads), at least fp32."""
        parts = []
        alpha = self._softmax("wg_0", x)
        if self.shared:
            weights = self._softmax("wg_1", x)
            if weights is None:
                weights = x.new_ones(*x.shape[:-1], 1, dtype=torch.promote_types(x.dtype, torch.float32))
            parts.append(self.shared * weights)
        if (p := self._softmax("wg", x)) is not None:
            chosen = p * self._choose(p)
            parts.append(self.routed * chosen / chosen.sum(-1, keepdim=True))
        if alpha is not None:
            parts = [2 * alpha[..., i : i + 1] * part for i, part in enumerate(parts)]
        return self._tell(torch.cat(parts, -1))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (..., C) -> gates (..., heads), at least fp32."""
        return self.gates(x)

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds of the gates of a map of `size` = (B, *space, dim)."""
        return math.prod(size) * sum(layer.out_features for layer in self.children())  # type: ignore[misc]

    def _softmax(self, name: str, x: Tensor) -> Tensor | None:
        layer = self._modules[name]
        if layer is None:
            return None
        logits = apply_linear(layer, x)
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)


class RoutedHeads(HeadRouter):
    """`HeadRouter` as a gate on the heads of any mixer: see `qna.parts.head_gate.GatedHeads`."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What the heads made of x (..., C), y (..., heads, d), by their gates: as y."""
        return y * self.gates(x)[..., None].to(y.dtype)


class NormRouter(ChoosesHeads):
    """The parameter-free router of MoH-LLaMA3: queries that are long choose, and gates are 1 or 0.

    A head's logit is the length of its query, over the standard deviation (by E - 1) of these lengths across
    the E routed heads; p is their softmax. Neither changes which hr are the largest. Gates of the shared
    heads are 1.

    The released code is inference alone. In training gates are ``1[j in T] + p_j - p_j`` with the last term
    detached, so that a gradient goes straight through the choice into p, and none into the deviation: that is
    our choice, as is the balance loss of these p. Lengths that are all equal are divided by 0 there; here p
    is even then.

    Args:
        heads, shared, routed, balanced: as for `HeadRouter`.
    """

    def forward(self, q: Tensor) -> Tensor:
        """Queries (..., heads, d), before a norm or rotation of their own -> gates (..., heads)."""
        wide = torch.promote_types(q.dtype, torch.float32)
        lengths = torch.linalg.vector_norm(q.to(wide), dim=-1)
        gates = lengths.new_ones(*lengths.shape[:-1], self.shared)
        if self.routed:
            routed = lengths[..., self.shared :]
            if routed.shape[-1] > 1:
                spread = routed.detach().std(-1, keepdim=True)
                routed = routed / spread.clamp_min(torch.finfo(wide).eps)
            p = routed.softmax(-1)
            chosen = self._choose(p)
            if self.training:
                chosen = chosen + p - p.detach()
            gates = torch.cat([gates, chosen], -1)
        return self._tell(gates)


def balance_loss(p: Tensor, chosen: Tensor) -> Tensor:
    """``E sum_j P_j f_j``: P_j a head's mean probability over all tokens, f_j the share that chose it.

    With hr choices a token it is hr where either is even, and E where every token chooses the same heads and
    p is spread over these alone.

    Args:
        p: probabilities (..., E) of each token.
        chosen: 1 and 0, the same shape.
    """
    mean_p, share = (t.flatten(0, -2).mean(0) for t in (p, chosen))
    return p.shape[-1] * (mean_p * share).sum()


def why_no_routes(heads: int, shared: int, routed: int) -> str:
    """Why so many heads cannot be shared and routed, a sentence; empty where they can."""
    if not all(type(n) is int and n >= 0 for n in (shared, routed)):
        return f"shared and routed heads must be integers of at least 0, got {shared!r} and {routed!r}"
    if shared + routed > heads or not shared + routed:
        return f"of {heads} heads, {shared} shared and {routed} routed cannot be active"
    if not routed and shared < heads:
        return f"of {heads} heads {shared} are shared, and nobody could choose the others: routed is 0"
    return ""


@contextmanager
def noting_heads(network: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """While it is open, of each router by its name the share of tokens that each head speaks for, by call."""
    routers = dict(_routers(network))
    noted: dict[str, list[Tensor]] = {name: [] for name in routers}
    for name, router in routers.items():
        router.noted = noted[name]
    try:
        yield noted
    finally:
        for router in routers.values():
            router.noted = None


def _routers(network: nn.Module) -> Iterable[tuple[str, ChoosesHeads]]:
    return ((name, m) for name, m in network.named_modules() if isinstance(m, ChoosesHeads))
