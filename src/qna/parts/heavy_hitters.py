"""H2O: the keys that received most attention stay, and the last ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qna._core import checks
from qna._core.errors import InvalidInput
from qna.parts.kv_cache import CachePolicy, CacheShape, ScoredCache


@dataclass(frozen=True)
class KeepHeavy(CachePolicy):
    """The `heavy` positions that received most attention stay, and the last `recent` (Zhang et al., H2O).

    After each call of attention, with its own positions: attention that a key received is summed over all
    queries so far and over the queries' heads that share it; among the positions before the last `recent`
    those with the largest sums stay, in each head of keys for itself, and of equals the earlier ones. What is
    dropped is gone, keys and sums. As in FMInference/H2O a prompt that comes in one call attends all of
    itself first; in several parts it attends what is kept, and the choice may differ. The authors count both
    budgets as ratios of the prompt, mask instead of dropping, and serve one sequence at a time.

    Args:
        heavy: positions that stay for what they received.
        recent: last positions that stay in any case.
    """

    heavy: int
    recent: int

    def __post_init__(self):
        checks.natural(type(self).__name__, heavy=self.heavy, recent=self.recent)
        if self.heavy + self.recent == 0:
            raise InvalidInput("KeepHeavy keeps nothing: heavy and recent are 0; keep at least one position")

    def empty(self, shape: CacheShape) -> _Heavy:
        """Nothing yet."""
        return _Heavy(*_Heavy.nothing(shape), length=0, policy=self)

    def kept(self, length: int) -> int:
        """At most both budgets."""
        return min(length, self.heavy + self.recent)

    def state_bytes(self, shape: CacheShape, length: int) -> int:
        """Bytes of keys and values, their positions, and what they received."""
        exact = torch.promote_types(shape.dtype, torch.float32).itemsize
        beside = shape.batch * shape.heads * self.kept(length) * (exact + torch.int64.itemsize)
        return super().state_bytes(shape, length) + beside


class _Heavy(ScoredCache):
    """The cache of `KeepHeavy`."""

    def __init__(self, *tensors: Tensor, length: int, policy: KeepHeavy):
        keys, values, positions, received = tensors
        super().__init__(keys, values, positions, received, length)
        self.policy = policy

    def chosen(self, positions: Tensor, received: Tensor, length: int) -> Tensor | None:
        """The heavy ones of those that are not recent, then the recent."""
        there, policy = positions.shape[-1], self.policy
        if there <= policy.heavy + policy.recent:
            return None
        older = received[..., : there - policy.recent]
        # of equals the earlier: sorting is stable
        order = older.sort(dim=-1, descending=True, stable=True).indices
        heavy = order[..., : policy.heavy].sort(-1).values
        last = torch.arange(there - policy.recent, there, device=received.device)
        return torch.cat([heavy, last.expand(*heavy.shape[:-1], policy.recent)], -1)

    def made(self, *tensors: Tensor, length: int) -> _Heavy:
        """Another one of the same policy."""
        return _Heavy(*tensors, length=length, policy=self.policy)
