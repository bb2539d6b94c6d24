"""UniqueSignature: graphs, and which nodes have a neighbour with the sum of all neighbours' features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from qna._core.errors import InvalidInput


class Graphs(NamedTuple):
    """A batch of graphs, filled up to the largest of them with nodes without edges.

    Attributes:
        features: (G, N, 1), whole numbers.
        adjacency: (G, N, N), bool, symmetric, no node its own neighbour.
        mask: (G, N), whether there is such a node.
        labels: (G, N), 0.0 or 1.0.
    """

    features: Tensor
    adjacency: Tensor
    mask: Tensor
    labels: Tensor

    def take(self, which: Tensor) -> Graphs:
        """The graphs of these numbers, filled up no further than they need."""
        nodes = int(self.mask[which].sum(1).max())
        return Graphs(
            self.features[which, :nodes],
            self.adjacency[which, :nodes, :nodes],
            self.mask[which, :nodes],
            self.labels[which, :nodes],
        )


@dataclass(frozen=True)
class UniqueSignature:
    """A distribution of graphs with a label for each node (Lim et al., arXiv 2511.11046).

    A graph has `nodes[0]` to `nodes[1]` nodes, every number alike, and each pair of them an edge with
    probability `edges`. Features are whole numbers, -(values // 2) and on, all alike. The label of u is 1 if
    some neighbour v has ``x_v = sum_(w in N(u)) x_w``; without neighbours it is 0.

    Attributes:
        edges: probability of an edge.
        values: how many values features have.
        nodes: fewest and most nodes.
    """

    edges: float = 0.5
    values: int = 3
    nodes: tuple[int, int] = (30, 70)

    def __post_init__(self):
        low, high = self.nodes
        if not 0 < self.edges <= 1 or self.values < 1 or not 1 <= low <= high:
            raise InvalidInput(
                "graphs need a probability of edges above 0 and at most 1, one value or more and 1 or more "
                f"nodes, got edges={self.edges:g}, values={self.values} and nodes={self.nodes}"
            )

    def draw(self, graphs: int, seed: int) -> Graphs:
        """So many graphs, which follow from the seed."""
        generator = torch.Generator().manual_seed(seed)
        low, high = self.nodes
        sizes = torch.randint(low, high + 1, (graphs, 1), generator=generator)
        mask = torch.arange(high) < sizes
        above = torch.rand(graphs, high, high, generator=generator).lt(self.edges).triu(1)
        adjacency = (above | above.mT) & mask[:, None] & mask[:, :, None]
        features = torch.randint(self.values, (graphs, high, 1), generator=generator) - self.values // 2
        features = (features * mask[..., None]).float()
        return Graphs(features, adjacency, mask, labels(features, adjacency))


def labels(features: Tensor, adjacency: Tensor) -> Tensor:
    """Whether a neighbour has the sum of all neighbours: (G, N, 1) and (G, N, N) -> (G, N)."""
    sums = adjacency.to(features.dtype) @ features
    return (adjacency & (features.mT == sums)).any(-1).to(features.dtype)
