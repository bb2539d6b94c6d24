"""ProxyAttn as a cache policy: a prompt is read by the blocks that proxies choose, and all of it is kept."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from qna.parts.block_choice import attend_chosen
from qna.parts.kv_cache import CacheShape, KeepAll, WholeCache
from qna.parts.proxy_blocks import ProxyBlocks


@dataclass(frozen=True)
class ProxyPrefill(ProxyBlocks, KeepAll):
    """Every position stays, and the first call of attention reads only the blocks that `ProxyBlocks` chooses.

    Later calls, token by token or many at once, attend everything, as published: the prompt alone is read
    sparsely. So a prompt given in one call is not what it is in several. One that the least budget covers is
    read densely.
    """

    def empty(self, shape: CacheShape) -> ReadByBlocks:
        """Nothing yet."""
        return ReadByBlocks(*shape.nothing(), policy=self)


@dataclass(frozen=True)
class ReadByBlocks(WholeCache):
    """The cache of `ProxyPrefill`."""

    policy: ProxyPrefill

    def attended(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """A whole prompt over chosen blocks, all else over everything."""
        whole = query.shape[-2] == keys.shape[-2] > max(self.policy.least, self.policy.block)
        if whole:
            return attend_chosen(query, keys, values, self.policy)
        return super().attended(query, keys, values)
