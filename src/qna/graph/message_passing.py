"""SINC-GCN and SIR-GCN on lists of edges: the only door to torch-geometric."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, ClassVar, Optional

import torch
from torch import Tensor

from qna._core.errors import InvalidInput, require
from qna.parts.contextual_messages import ContextualMessages, Reduce

with warnings.catch_warnings():
    # of functions of its own that it compiles in a way which torch 2.13 calls old
    warnings.simplefilter("ignore", DeprecationWarning)
    _layers: Any = require("torch_geometric.nn", extra="graph", purpose="a layer on lists of edges")
    _utils: Any = require("torch_geometric.utils", extra="graph", purpose="a layer on lists of edges")
# known when it is there alone, to a type checker as well
MessagePassing: Any = _layers.MessagePassing


class _Pull(MessagePassing):
    """Sum or maximum of the sources' values."""

    # what `propagate` is called with, which torch-geometric would look for in this class
    propagate_type: ClassVar = {"values": Tensor}

    def message(self, values_j: Tensor) -> Tensor:
        """As they are."""
        return values_j


class _Conv(MessagePassing):
    """What both layers do."""

    # it reads these types too, and no union that is written with a bar
    propagate_type: ClassVar = {
        "query": Tensor,
        "key": Tensor,
        "weight": Optional[Tensor],  # noqa: UP045
        "of_pair": Callable,
    }

    def __init__(self, in_channels: int, hidden_channels: int, out_channels: int, **arguments: Any):
        formula = ContextualMessages(in_channels, hidden_channels, out_channels, **arguments)
        super().__init__(aggr=_reduce_of(formula.aggregator))
        self.in_channels, self.out_channels = in_channels, out_channels
        self.formula = formula
        self.pull = None if formula.context is None else _Pull(aggr=_reduce_of(formula.context))

    def forward(
        self, x: Tensor | tuple[Tensor, Tensor], edge_index: Tensor, size: tuple[int, int] | None = None
    ) -> Tensor:
        """What each target hears.

        Args:
            x: (N, in_channels); or a pair of them, of sources and of targets, where they are different nodes.
            edge_index: (2, E), edges from nodes of the first row to nodes of the second, or a transposed
                adjacency matrix of a sparse layout, (targets, sources). No edge from a node to itself is
                added: `torch_geometric.utils.add_self_loops` does so.
            size: numbers of sources and targets; None for those of `x`.

        Returns:
            (N, out_channels), a row for each target.

        Raises:
            InvalidInput: shapes that do not fit.
        """
        source, target = (x, x) if isinstance(x, Tensor) else x
        owner = type(self).__name__
        for features in (source, target):
            if features.ndim != 2 or features.shape[-1] != self.in_channels:
                raise InvalidInput(f"{owner}: x must be (N, {self.in_channels}), got {tuple(features.shape)}")
        if isinstance(edge_index, Tensor) and edge_index.layout != torch.strided:
            edge_index = _utils.to_edge_index(edge_index)[0].flip(0)
        if not isinstance(edge_index, Tensor) or edge_index.ndim != 2 or edge_index.shape[0] != 2:
            shape = getattr(edge_index, "shape", type(edge_index).__name__)
            raise InvalidInput(
                f"{owner}: edge_index must be (2, E), or a sparse tensor of torch, got {shape}"
            )
        return self.formula(EdgeList(self, edge_index, size or (len(source), len(target))), source, target)

    def message(
        self, query_i: Tensor, key_j: Tensor, weight_j: Tensor | None, of_pair: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Of each edge, from j to i."""
        messages = of_pair(query_i + key_j)
        return messages if weight_j is None else messages * weight_j

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        super().reset_parameters()
        self.formula.reset_parameters()


class EdgeList:
    """Neighbours by edges; a `qna.parts.contextual_messages.Neighbors`.

    Args:
        layer: whose messages are passed.
        edge_index: (2, E), from sources to targets.
        size: numbers of both.
    """

    def __init__(self, layer: _Conv, edge_index: Tensor, size: tuple[int, int]):
        self.layer, self.edge_index, self.size = layer, edge_index, size

    def in_degrees(self, like: Tensor) -> Tensor:
        """(targets, 1)."""
        return _utils.degree(self.edge_index[1], self.size[1], like.dtype)[:, None]

    def out_degrees(self, like: Tensor) -> Tensor:
        """(sources, 1)."""
        return _utils.degree(self.edge_index[0], self.size[0], like.dtype)[:, None]

    def pull(self, values: Tensor, reduce: Reduce) -> Tensor:
        """(sources, C) -> (targets, C)."""
        assert self.layer.pull is not None
        assert self.layer.pull.aggr == reduce
        return self.layer.pull.propagate(self.edge_index, size=self.size, values=values)

    def meet(
        self,
        query: Tensor,
        key: Tensor,
        message: Callable[[Tensor], Tensor],
        reduce: Reduce,
        weight: Tensor | None,
    ) -> Tensor:
        """(targets, C), (sources, C) -> (targets, C'); messages of all edges are formed, (E, C')."""
        assert self.layer.aggr == reduce
        return self.layer.propagate(
            self.edge_index, size=self.size, query=query, key=key, weight=weight, of_pair=message
        )


def _reduce_of(aggregator: str) -> Reduce:
    """All but maxima are scaled sums."""
    return "max" if aggregator == "max" else "sum"


class SINCConv(_Conv):
    """Soft-isomorphic neighbourhood-contextualised graph convolution (Lim et al., arXiv 2511.11046).

    Each node u hears of its neighbours v what depends on both and on all neighbours of u::

        y_u = AGG_(v in N(u)) W_R act(W_Q h_u + W_K h_v + W_N AGG'_(w in N(u)) h_w)

    `qna.parts.contextual_messages.ContextualMessages` has the formula, its cost, what becomes of nodes
    without neighbours, and where the published code differs from the equation.

    Args:
        in_channels: of the nodes' features.
        hidden_channels: of messages inside.
        out_channels: of the output.
        context: aggregator of the neighbours' features, AGG': "sum", "mean", "sym" or "max".
        arguments: further ones of `ContextualMessages`.

    Raises:
        InvalidInput: sizes that are not positive.
        UnknownName: an aggregator that there is not.
        MissingExtra: torch-geometric is not installed; `DenseSINCConv` does without.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        *,
        context: str = "sum",
        **arguments: Any,
    ):
        super().__init__(in_channels, hidden_channels, out_channels, context=context, **arguments)


class SIRConv(_Conv):
    """Soft-isomorphic relational graph convolution: `SINCConv` whose messages know no neighbourhood.

        y_u = AGG_(v in N(u)) W_R act(W_Q h_u + W_K h_v)

    Args:
        in_channels: of the nodes' features.
        hidden_channels: of messages inside.
        out_channels: of the output.
        arguments: further ones of `ContextualMessages`, but `context`.

    Raises:
        InvalidInput: sizes that are not positive.
        UnknownName: an aggregator that there is not.
        MissingExtra: torch-geometric is not installed; `DenseSIRConv` does without.
    """

    def __init__(self, in_channels: int, hidden_channels: int, out_channels: int, **arguments: Any):
        super().__init__(in_channels, hidden_channels, out_channels, context=None, **arguments)
