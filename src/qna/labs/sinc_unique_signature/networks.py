"""One convolution of each kind and a linear classifier, on graphs as masks of pairs."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from qna.graph import DenseSINCConv, DenseSIRConv
from qna.labs.sinc_unique_signature.graphs import Graphs

SINC, SIR, SIR_SUM = "SINC-GCN", "SIR-GCN", "SIR-GCN of sums"
GCN, GIN, PNA, GAT = "GCN", "GIN", "PNA", "GATv2"


class NodeClassifier(nn.Module):
    """A convolution, ReLU and a linear map without bias to one logit a node.

    Args:
        convolution: (x (B, N, 1), adjacency (B, N, N), mask (B, N)) -> (B, N, hidden).
        hidden: channels behind it.
    """

    def __init__(self, convolution: nn.Module, hidden: int):
        super().__init__()
        self.convolution = convolution
        self.classifier = nn.Linear(hidden, 1, bias=False)

    def forward(self, graphs: Graphs) -> Tensor:
        """Logits, (G, N)."""
        found = self.convolution(graphs.features, graphs.adjacency, graphs.mask)
        return self.classifier(found.relu()).squeeze(-1)


class DenseGCN(nn.Module):
    """Graph convolution (Kipf and Welling, ICLR 2017) without self loops: ``D^-1/2 A D^-1/2 X W + b``."""

    def __init__(self, dim: int, out_dim: int):
        super().__init__()
        self.linear = nn.Linear(dim, out_dim, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_dim))

    def forward(self, x: Tensor, adjacency: Tensor, mask: Tensor) -> Tensor:
        """(B, N, C), (B, N, N) -> (B, N, C')."""
        scale = adjacency.sum(-1, keepdim=True).clamp(min=1).to(x.dtype).rsqrt()
        return scale * (adjacency.to(x.dtype) @ (scale * self.linear(x))) + self.bias


class DenseGIN(nn.Module):
    """Graph isomorphism network (Xu et al., ICLR 2019): an MLP of a node's and its neighbours' sum."""

    def __init__(self, dim: int, out_dim: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(dim, out_dim), nn.ReLU(), nn.Linear(out_dim, out_dim), nn.ReLU())

    def forward(self, x: Tensor, adjacency: Tensor, mask: Tensor) -> Tensor:
        """(B, N, C), (B, N, N) -> (B, N, C')."""
        return self.mlp(x + adjacency.to(x.dtype) @ x)


class DensePNA(nn.Module):
    """Principal neighbourhood aggregation (Corso et al., NeurIPS 2020): sums, maxima and deviations.

    As DGL's layer with one tower: messages M(x_v, x_u), U of x_u and of the three aggregates, divided by the
    root of the number of nodes, a batch norm, and a linear map with a leaky ReLU.
    """

    def __init__(self, dim: int, out_dim: int):
        super().__init__()
        self.message = nn.Linear(2 * dim, dim)
        self.update = nn.Linear(4 * dim, out_dim)
        self.norm = nn.BatchNorm1d(out_dim)
        self.mixing = nn.Sequential(nn.Linear(out_dim, out_dim), nn.LeakyReLU())

    def forward(self, x: Tensor, adjacency: Tensor, mask: Tensor) -> Tensor:
        """(B, N, C), (B, N, N), (B, N) -> (B, N, C'); nodes that fill a graph up are in no mean."""
        of_source, of_target = self.message.weight.split(x.shape[-1], 1)
        messages = (x @ of_source.mT)[:, None] + (x @ of_target.mT + self.message.bias)[:, :, None]
        edge, shares = adjacency[..., None], adjacency.to(x.dtype)
        count = shares.sum(-1, keepdim=True).clamp(min=1)
        total, squares = ((shares[:, :, None] @ m)[:, :, 0] for m in (messages, messages.square()))
        highest = messages.masked_fill(~edge, -torch.inf).amax(2).masked_fill(~edge.any(2), 0.0)
        variance = (squares / count - (total / count).square()).relu()
        # DGL's own term, without which the root has no gradient at 0
        deviation = (variance + 1e-30).sqrt() * edge.any(2)
        updated = self.update(torch.cat([x, total, highest, deviation], -1))
        sizes = mask.sum(1).to(x.dtype).clamp(min=1)
        scaled = updated * sizes.rsqrt()[:, None, None]
        normed = torch.zeros_like(scaled).index_put((mask,), self.norm(scaled[mask]))
        return self.mixing(normed)


class DenseGATv2(nn.Module):
    """Graph attention (Brody et al., ICLR 2022) with one head and one map for both ends, as DGL shares it.

    ``y_u = sum_v softmax_v(a . LeakyReLU(W x_u + W x_v)) W x_v``; 0 without neighbours.
    """

    def __init__(self, dim: int, out_dim: int):
        super().__init__()
        self.linear = nn.Linear(dim, out_dim)
        self.attention = nn.Parameter(torch.empty(out_dim))
        nn.init.normal_(self.attention, std=math.sqrt(2 / (out_dim + 1)))

    def forward(self, x: Tensor, adjacency: Tensor, mask: Tensor) -> Tensor:
        """(B, N, C), (B, N, N) -> (B, N, C')."""
        values = self.linear(x)
        pairs = nn.functional.leaky_relu(values[:, None] + values[:, :, None], 0.2)
        scores = (pairs @ self.attention).masked_fill(~adjacency, -torch.inf)
        shares = scores.masked_fill(~adjacency.any(-1, keepdim=True), 0.0).softmax(-1)
        return (shares * adjacency) @ values


# contender -> its convolution for channels in and out
CONTENDERS: dict[str, Callable[[int, int], nn.Module]] = {
    SINC: lambda dim, hidden: DenseSINCConv(dim, hidden, hidden),
    # the published comparison has maxima here, and sums in SINC-GCN
    SIR: lambda dim, hidden: DenseSIRConv(dim, hidden, hidden, aggregator="max"),
    SIR_SUM: lambda dim, hidden: DenseSIRConv(dim, hidden, hidden),
    GIN: DenseGIN,
    PNA: DensePNA,
    GCN: DenseGCN,
    GAT: DenseGATv2,
}


def network(name: str, hidden: int) -> NodeClassifier:
    """The classifier of a contender, for one feature a node."""
    return NodeClassifier(CONTENDERS[name](1, hidden), hidden)
