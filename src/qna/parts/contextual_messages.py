"""Messages between neighbours that know the whole neighbourhood: the formula, whoever is whose neighbour.

Lists of edges, masks of pairs and windows of maps are ways to say who is; each is a `Neighbors`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from torch import Tensor, nn

from qna._core import checks
from qna._core.errors import InvalidInput, check_choice
from qna.parts.linear import apply_linear

AGGREGATORS = ("sum", "mean", "sym", "max")
Reduce = Literal["sum", "max"]


class Neighbors(Protocol):
    """Who hears whom: targets u, and the sources v of each, N(u). Channels come last in all tensors."""

    def in_degrees(self, like: Tensor) -> Tensor:
        """Sources of each target, (..., 1) in the dtype of `like`."""
        ...

    def out_degrees(self, like: Tensor) -> Tensor:
        """Targets of each source, (..., 1) in the dtype of `like`."""
        ...

    def pull(self, values: Tensor, reduce: Reduce) -> Tensor:
        """Sum or maximum of the values of each target's sources; 0 where it has none."""
        ...

    def meet(
        self,
        query: Tensor,
        key: Tensor,
        message: Callable[[Tensor], Tensor],
        reduce: Reduce,
        weight: Tensor | None,
    ) -> Tensor:
        """Sum or maximum over v of ``weight_v message(query_u + key_v)`` for each u; 0 without sources.

        Args:
            query: of the targets.
            key: of the sources.
            message: of the last axis alone; of any leading shape.
            reduce: sums or maxima.
            weight: of the sources, (..., 1); None for 1. With sums alone.
        """
        ...


class ContextualMessages(nn.Module):
    """Soft-isomorphic neighbourhood-contextualised convolution (Lim et al., arXiv 2511.11046), SINC.

    Every pair of a target u and a source v has a message of its own, which knows both and what surrounds u::

        y_u = AGG_(v in N(u)) W_R act(W_Q h_u + W_K h_v + W_N AGG'_(w in N(u)) h_w)

    AGG and AGG' are sums, means, symmetric means, ``sum_v h_v / sqrt(outdeg(v) indeg(u))`` with degrees of at
    least 1, or maxima by channel. A node is its own neighbour only where it is said to be. Without W_N this
    is SIR-GCN of the same authors. W_Q and W_R have a bias, W_K and W_N none.

    W_R is linear, so it is applied once to each sum or mean, with its bias once per target; of a maximum it
    stands inside, once per pair. A target without neighbours gets the bias of W_R, or 0 where the aggregator
    is "max". With V nodes and E pairs the products cost ``V (3 C C_h + C_h C_o)`` multiply-adds and pairs
    none, but for "max", ``3 V C C_h + E C_h C_o``; what is done per pair is an addition and the activation.

    The published code aggregates features and maps the aggregate by W_N, which is V products; the equation
    maps first (`project_first`). The two are equal but for AGG' = "max".

    Args:
        dim: channels C of the input.
        hidden: channels C_h of messages inside.
        out_dim: channels C_o of the output.
        aggregator: AGG: "sum", "mean", "sym" or "max".
        context: AGG', of the same; None for none and no W_N: SIR-GCN.
        activation: act, a module that maps the last axis of any tensor; None for ReLU.
        project_first: whether W_N comes before AGG', as in the equation.
        drop: dropout of each of the three terms inside, in training.
        inner_bias: whether W_Q has one.
        outer_bias: whether W_R has one.

    Raises:
        InvalidInput: sizes that are not positive, or `project_first` without a context.
        UnknownName: an aggregator that there is not.
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        out_dim: int,
        *,
        aggregator: str = "sum",
        context: str | None = "sum",
        activation: nn.Module | None = None,
        project_first: bool = False,
        drop: float = 0.0,
        inner_bias: bool = True,
        outer_bias: bool = True,
    ):
        super().__init__()
        name = type(self).__name__
        checks.positive(name, dim=dim, hidden=hidden, out_dim=out_dim)
        checks.rate(name, drop=drop)
        if project_first and context is None:
            raise InvalidInput(f"{name}: project_first says when W_N is applied, and context=None has no W_N")
        self.aggregator = check_choice("aggregator", aggregator, AGGREGATORS)
        self.context = None if context is None else check_choice("context", context, AGGREGATORS)
        self.project_first = project_first
        self.query = nn.Linear(dim, hidden, bias=inner_bias)
        self.key = nn.Linear(dim, hidden, bias=False)
        self.neighborhood = None if context is None else nn.Linear(dim, hidden, bias=False)
        self.relation = nn.Linear(hidden, out_dim, bias=outer_bias)
        self.activation = nn.ReLU() if activation is None else activation
        self.drop = nn.Dropout(drop)

    def forward(self, neighbors: Neighbors, source: Tensor, target: Tensor | None = None) -> Tensor:
        """What each target hears.

        Args:
            neighbors: who hears whom.
            source: features of the sources, (..., dim).
            target: features of the targets; None where they are the sources.

        Returns:
            (..., out_dim), a row for each target.
        """
        heard = self._heard(neighbors, source, source if target is None else target)
        # of sums behind them: its bias counts once per target, however many neighbours it has
        return heard if self.aggregator == "max" else apply_linear(self.relation, heard)

    def reset_parameters(self) -> None:
        """Draw all weights anew, as torch begins linear maps."""
        for linear in (self.query, self.key, self.neighborhood, self.relation):
            if linear is not None:
                linear.reset_parameters()

    def macs(self, nodes: int, pairs: int) -> int:
        """Multiply-adds of so many nodes and pairs of them: products alone."""
        inner = sum(linear.weight.numel() for linear in (self.query, self.key, self.neighborhood) if linear)
        return nodes * inner + (pairs if self.aggregator == "max" else nodes) * self.relation.weight.numel()

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        first = ", project_first=True" if self.project_first else ""
        return f"aggregator={self.aggregator!r}, context={self.context!r}{first}"

    def _heard(self, neighbors: Neighbors, source: Tensor, target: Tensor) -> Tensor:
        query = self.drop(apply_linear(self.query, target))
        key = self.drop(apply_linear(self.key, source))
        if self.neighborhood is not None and self.context is not None:
            query = query + self.drop(self._context_of(neighbors, source, self.neighborhood, self.context))
        if self.aggregator == "max":
            return neighbors.meet(query, key, self._related, "max", None)
        before, after = _scales(neighbors, query, self.aggregator)
        heard = neighbors.meet(query, key, self.activation, "sum", before)
        return heard if after is None else heard * after

    def _context_of(self, neighbors: Neighbors, source: Tensor, linear: nn.Module, how: str) -> Tensor:
        if self.project_first:
            return _aggregate(neighbors, apply_linear(linear, source), how)
        # the trap: of maxima this is not the equation, but it is what the published code does
        return apply_linear(linear, _aggregate(neighbors, source, how))

    def _related(self, pairs: Tensor) -> Tensor:
        return apply_linear(self.relation, self.activation(pairs))


def _aggregate(neighbors: Neighbors, values: Tensor, how: str) -> Tensor:
    if how == "max":
        return neighbors.pull(values, "max")
    before, after = _scales(neighbors, values, how)
    total = neighbors.pull(values if before is None else values * before, "sum")
    return total if after is None else total * after


def _scales(neighbors: Neighbors, like: Tensor, how: str) -> tuple[Tensor | None, Tensor | None]:
    """What sources are multiplied by before they are summed, and targets after."""
    if how == "sum":
        return None, None
    received = neighbors.in_degrees(like).clamp(min=1)
    if how == "mean":
        return None, received.reciprocal()
    return neighbors.out_degrees(like).clamp(min=1).rsqrt(), received.rsqrt()
