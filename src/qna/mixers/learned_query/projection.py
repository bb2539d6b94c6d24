"""From a map to what learned-query attention takes: scores, values, position bias and query weights.

Sizes: C channels of the map, L queries, h heads, d channels per head. Keys are never formed: the score of
a key ``x W_k`` with a query is ``x (W_k q)``, and ``W_k q`` is one column for all windows and images.

The channels of the values run over (d, h), heads fastest: a kernel then applies one vector of weights, one
per head, to consecutive channels. The rows of the value projection and the columns of the output projection
are kept in this order, so that it costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core.checks import positive
from qna._core.errors import InvalidInput, check_choice
from qna.mixers.learned_query.position import POSITIONS
from qna.mixers.learned_query.query_weight import QUERY_WEIGHTS
from qna.ops.learned_query.layout import split
from qna.parts.initializers import init_linear_, lecun_normal_, truncated_normal_
from qna.parts.linear import apply_linear, linear
from qna.parts.plain import is_plain


class QueryShape(NamedTuple):
    """L, h and d: queries, heads, channels per head."""

    queries: int
    heads: int
    head_dim: int


class AttentionInputs(NamedTuple):
    """Arguments of `qna.ops.learned_query_attention`."""

    scores: Tensor
    value: Tensor
    bias: Tensor
    weight: Tensor | None


class PackedInputs(NamedTuple):
    """Arguments of `qna.ops.packed_learned_query_attention`: values and scores in one buffer."""

    packed: Tensor
    bias: Tensor
    weight: Tensor | None

    def split(self) -> AttentionInputs:
        """The same with scores and value as views of the buffer."""
        return AttentionInputs(*split(self.packed, self.bias.shape[-2]), self.bias, self.weight)


class QueryKeyValue(nn.Module):
    """Learned queries and the projections to keys and values, applied as one matrix product.

    There is no key bias: it would add ``q b_k`` to every score of a query, which the softmax cancels.

    `value` is a linear map like any other to tools that look for one: where a hook, a pruning mask, an
    adapter or a quantised layer is put on it or in its place, it is called, and the scores are a second
    product.

    Args:
        dim: channels of the map.
        shape: number of queries, heads and channels per head.
        kernel: taps per axis of the window.
        position: "relative", "contextual", "absolute" or "none".
        query_weight: "normal", "elementwise", "posneg", "ones", "avg" or "none".
        bias: whether values have a bias.
        normalize_query: divide each head's query by its length before the division by sqrt(d).
    """

    def __init__(
        self,
        dim: int,
        shape: QueryShape,
        kernel: Sequence[int],
        *,
        position: str,
        query_weight: str,
        bias: bool,
        normalize_query: bool,
    ):
        super().__init__()
        check_choice("position", position, POSITIONS)
        check_choice("query_weight", query_weight, QUERY_WEIGHTS)
        positive("QnA", num_queries=shape.queries)
        self.normalize_query = normalize_query
        self.query = nn.Parameter(torch.empty(shape))
        self.key = nn.Parameter(torch.empty(shape.heads, shape.head_dim, dim))
        self.value = nn.Linear(dim, shape.heads * shape.head_dim, bias=bias)
        self.position = POSITIONS[position](kernel, *shape)
        self.query_weight = QUERY_WEIGHTS[query_weight](kernel, shape.queries, shape.heads)
        truncated_normal_(self.query, shape.head_dim**-0.5)
        lecun_normal_(self.key, dim)
        init_linear_(self.value)

    def forward(self, x: Tensor) -> PackedInputs:
        """(B, *space, C) -> the op's arguments."""
        query = self.scaled_query()
        if is_plain(self.value, nn.Linear):
            packed = linear(x, *self.one_projection(query))
        else:
            value = self.value(x)
            packed = torch.cat([value, linear(x, self.score_projection(query)).to(value.dtype)], -1)
        packed = packed.unflatten(-1, (-1, self.query.shape[1]))
        return PackedInputs(packed, self.position(query), self.query_weight(query))

    def scaled_query(self) -> Tensor:
        """The queries (L, h, d) as they meet the keys: of length 1 / sqrt(d) if normalised."""
        query = self.query
        if self.normalize_query:
            query = query / (torch.linalg.vector_norm(query, dim=-1, keepdim=True) + 1e-6)
        return query * query.shape[-1] ** -0.5

    def score_projection(self, query: Tensor) -> Tensor:
        """Weight (L * h, C) of the projection to scores."""
        return torch.einsum("lhd,hdc->lhc", query, self.key).flatten(0, 1).to(self.key.dtype)

    def one_projection(self, query: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weight (h * d + L * h, C) and bias of the projection to values and scores."""
        score = self.score_projection(query)
        bias = self.value.bias
        if bias is not None:
            bias = F.pad(bias, (0, len(score)))
        return torch.cat([self.value.weight, score.to(self.value.weight.dtype)]), bias

    def query_macs(self) -> int:
        """Multiply-adds of W_k q, formed once per call."""
        return self.query.shape[0] * self.key.numel()

    @torch.no_grad()
    def fold(self) -> FoldedQueryKeyValue:
        """The same map with constants: W_k q folded, and all that depends on the query evaluated.

        Raises:
            InvalidInput: the values are not projected by a plain linear map, whose weight could be folded.
        """
        if not is_plain(self.value, nn.Linear):
            raise InvalidInput(
                f"fuse() folds values of a plain linear map, but hooks, masks or adapters are on this "
                f"{type(self.value).__name__}: merge or remove them first, and quantise after fuse()"
            )
        query = self.scaled_query()
        return FoldedQueryKeyValue(
            *self.one_projection(query), self.position(query), self.query_weight(query)
        )


class FoldedQueryKeyValue(nn.Module):
    """A `QueryKeyValue` for inference: one linear map, `packed`, and two tables, all constant."""

    position: Tensor
    query_weight: Tensor | None

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        position: Tensor,
        query_weight: Tensor | None,
    ):
        super().__init__()
        # made without data: initial values would move torch's generator
        self.packed = nn.Linear(*reversed(weight.shape), bias=bias is not None, device="meta")
        for name, tensor in {"weight": weight, "bias": bias}.items():
            if tensor is not None:
                setattr(self.packed, name, nn.Parameter(tensor.detach().clone(), requires_grad=False))
        for name, tensor in {"position": position, "query_weight": query_weight}.items():
            self.register_buffer(name, None if tensor is None else tensor.detach().clone())
        self.register_load_state_dict_pre_hook(_from_buffers)

    def forward(self, x: Tensor) -> PackedInputs:
        """(B, *space, C) -> the op's arguments."""
        packed = apply_linear(self.packed, x).unflatten(-1, (-1, self.position.shape[-1]))
        return PackedInputs(packed, self.position, self.query_weight)

    def query_macs(self) -> int:
        """None: W_k q is a constant."""
        return 0

    def fold(self) -> FoldedQueryKeyValue:
        """Itself."""
        return self


def merge_heads(attended: Tensor) -> Tensor:
    """(..., h, d) -> (..., d * h), in the channel order of the values; a view where heads are fastest."""
    return attended.transpose(-1, -2).flatten(-2)


def _from_buffers(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Read what was fused when weight and bias were buffers of the module itself."""
    for name in ("weight", "bias"):
        if f"{prefix}{name}" in state:
            state[f"{prefix}packed.{name}"] = state.pop(f"{prefix}{name}")
