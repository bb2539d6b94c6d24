"""SINC-GCN and SIR-GCN on batches of graphs as masks of pairs: quick for small and for dense graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from qna._core.errors import InvalidInput
from qna.parts.contextual_messages import ContextualMessages, Reduce


class PairMask:
    """Neighbours by a matrix; a `qna.parts.contextual_messages.Neighbors`.

    Args:
        adjacency: (B, U, V), how many edges lead from source v to target u: bool, or numbers.
    """

    def __init__(self, adjacency: Tensor):
        self.adjacency = adjacency

    def in_degrees(self, like: Tensor) -> Tensor:
        """(B, U, 1)."""
        return self.adjacency.to(like.dtype).sum(-1)[..., None]

    def out_degrees(self, like: Tensor) -> Tensor:
        """(B, V, 1)."""
        return self.adjacency.to(like.dtype).sum(-2)[..., None]

    def pull(self, values: Tensor, reduce: Reduce) -> Tensor:
        """(B, V, C) -> (B, U, C)."""
        if reduce == "sum":
            return self.adjacency.to(values.dtype) @ values
        return self._maxima(values[:, None].expand(-1, self.adjacency.shape[1], -1, -1))

    def meet(
        self,
        query: Tensor,
        key: Tensor,
        message: Callable[[Tensor], Tensor],
        reduce: Reduce,
        weight: Tensor | None,
    ) -> Tensor:
        """(B, U, C), (B, V, C) -> (B, U, C'); all pairs are formed, (B, U, V, C) and (B, U, V, C')."""
        messages = message(query[:, :, None] + key[:, None])
        if reduce == "max":
            return self._maxima(messages)
        shares = self.adjacency.to(messages.dtype)
        if weight is not None:
            shares = shares * weight.mT
        return (shares[:, :, None] @ messages)[:, :, 0]

    def _maxima(self, messages: Tensor) -> Tensor:
        edge = self.adjacency.bool()
        # an addition to all channels at once is much quicker than to fill
        below = torch.zeros_like(edge, dtype=messages.dtype).masked_fill(~edge, -torch.inf)
        highest = (messages + below[..., None]).amax(2)
        return highest.masked_fill(~edge.any(2, keepdim=True), 0.0)


class _DenseConv(nn.Module):
    """What both layers do."""

    def __init__(self, in_channels: int, hidden_channels: int, out_channels: int, **arguments: Any):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.formula = ContextualMessages(in_channels, hidden_channels, out_channels, **arguments)

    def forward(self, x: Tensor, adjacency: Tensor, mask: Tensor | None = None) -> Tensor:
        """What each node hears.

        Args:
            x: (B, N, in_channels).
            adjacency: (B, N, N) or (N, N), [u, v] for an edge from v to u: bool, or numbers of edges. A
                diagonal of 0 leaves a node out of its own neighbourhood, as published.
            mask: (B, N), False for places that fill a graph up; what comes out there is 0. They must have no
                edges.

        Returns:
            (B, N, out_channels).

        Raises:
            InvalidInput: shapes that do not fit.
        """
        owner = type(self).__name__
        if x.ndim != 3 or x.shape[-1] != self.in_channels:
            raise InvalidInput(f"{owner}: x must be (B, N, {self.in_channels}), got {tuple(x.shape)}")
        batch, nodes, _ = x.shape
        if tuple(adjacency.shape) not in ((nodes, nodes), (batch, nodes, nodes)):
            raise InvalidInput(
                f"{owner}: adjacency must be ({batch}, {nodes}, {nodes}) or ({nodes}, {nodes}), "
                f"got {tuple(adjacency.shape)}"
            )
        if mask is not None and tuple(mask.shape) != (batch, nodes):
            raise InvalidInput(f"{owner}: mask must be ({batch}, {nodes}), got {tuple(mask.shape)}")
        y = self.formula(PairMask(adjacency if adjacency.ndim == 3 else adjacency[None]), x)
        return y if mask is None else y * mask[..., None]

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        self.formula.reset_parameters()


class DenseSINCConv(_DenseConv):
    """`qna.graph.SINCConv` on masks of pairs: the same weights give the same values.

    All B N^2 pairs are formed, of `hidden_channels` numbers each, whether there is an edge or not.

    Args:
        in_channels: of the nodes' features.
        hidden_channels: of messages inside.
        out_channels: of the output.
        context: aggregator of the neighbours' features: "sum", "mean", "sym" or "max".
        arguments: further ones of `qna.parts.contextual_messages.ContextualMessages`.

    Raises:
        InvalidInput: sizes that are not positive.
        UnknownName: an aggregator that there is not.
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


class DenseSIRConv(_DenseConv):
    """`qna.graph.SIRConv` on masks of pairs: `DenseSINCConv` whose messages know no neighbourhood.

    Args:
        in_channels: of the nodes' features.
        hidden_channels: of messages inside.
        out_channels: of the output.
        arguments: further ones of `qna.parts.contextual_messages.ContextualMessages`, but `context`.

    Raises:
        InvalidInput: sizes that are not positive.
        UnknownName: an aggregator that there is not.
    """

    def __init__(self, in_channels: int, hidden_channels: int, out_channels: int, **arguments: Any):
        super().__init__(in_channels, hidden_channels, out_channels, context=None, **arguments)
