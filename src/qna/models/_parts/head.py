"""Classification heads: pool the normalised map, then one linear layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from qna._core import checks
from qna._core.errors import check_choice
from qna.mixers import QnAPool2d
from qna.parts.initializers import init_linear_
from qna.parts.rows import PositionRows


class AveragePool(nn.Module):
    """The mean over the map."""

    def __init__(self, dim: int, num_heads: int, map_size: Sequence[int]):
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, C)."""
        return x.mean((1, 2))

    def attention_rows(self, x: Tensor) -> PositionRows:
        """Where its one row looks: at all of the map alike."""
        n = x.shape[1] * x.shape[2]
        shares = torch.full((len(x), 1, n), 1 / n, device=x.device)
        return PositionRows(shares, torch.arange(n, device=x.device)[None])


class QueryPool(nn.Module):
    """Attention pooling with two learned queries over the whole map ("qnav1")."""

    def __init__(self, dim: int, num_heads: int, map_size: Sequence[int]):
        super().__init__()
        self.attention = QnAPool2d(dim, num_heads=num_heads, map_size=map_size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, C)."""
        return self.attention(x)

    def attention_rows(self, x: Tensor) -> PositionRows:
        """Where its one row looks: mean over queries and heads."""
        return self.attention.attention_rows(x)


class QueryAndAveragePool(QueryPool):
    """Attention pooling added to the mean over the map ("qnav2")."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, C)."""
        return x.mean((1, 2)) + self.attention(x)

    def attention_rows(self, x: Tensor) -> PositionRows:
        """Where its one row looks: halfway between the learned queries and an even mean."""
        rows = self.attention.attention_rows(x)
        return rows._replace(shares=(rows.shares + 1 / rows.shares.shape[2]) / 2)


class NoPool(nn.Module):
    """The map itself, for a caller who pools."""

    def __init__(self, dim: int, num_heads: int, map_size: Sequence[int]):
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        return x


# "gap" is the paper's name and "avg" timm's
POOLS = {
    "avg": AveragePool,
    "gap": AveragePool,
    "qnav1": QueryPool,
    "qnav2": QueryAndAveragePool,
    "": NoPool,
}


class ClassifierHead(nn.Module):
    """Pooling, dropout and one linear layer.

    Attributes:
        pools: name -> pooling of (dim, num_heads, map_size); a family may have others.

    Args:
        dim: channels of the map.
        num_classes: number of logits; 0 ends with the pooled features.
        global_pool: "avg" (or "gap"), "qnav1", "qnav2", or "" for none.
        num_heads: heads of the pooling with learned queries.
        map_size: size of the map that the pooling with learned queries is trained for.
        drop_rate: dropout before the linear layer.
    """

    pools: ClassVar[Mapping[str, Callable[..., Any]]] = POOLS

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        global_pool: str,
        num_heads: int,
        map_size: Sequence[int],
        drop_rate: float,
    ):
        super().__init__()
        self.dim = dim
        self.num_heads = num_heads
        self.map_size = map_size
        checks.rate(type(self).__name__, drop_rate=drop_rate)
        self.drop = nn.Dropout(drop_rate)
        self.reset(num_classes, global_pool)

    def reset(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new linear layer in, and a new pooling if one is named."""
        if global_pool is not None:
            check_choice("global_pool", global_pool, self.pools)
            self.pool = self.pools[global_pool](self.dim, self.num_heads, self.map_size)
        self.fc = nn.Linear(self.dim, num_classes) if num_classes else nn.Identity()
        if isinstance(self.fc, nn.Linear):
            init_linear_(self.fc)
        # what is new would be in training mode in a model that is not
        self.train(self.training)

    def follow(self, dim: int, map_size: Sequence[int]) -> None:
        """Stand behind another map from the next `reset` on; the heads of a pooling keep their channels."""
        self.num_heads = max(1, self.num_heads * dim // self.dim)
        self.dim = dim
        self.map_size = map_size

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, H, W, C) -> logits (B, num_classes), or the pooled features (B, C) where `pre_logits`."""
        x = self.drop(self.pool(x))
        return x if pre_logits else self.fc(x)
