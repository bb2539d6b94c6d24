"""ProxyAttn's choice of blocks: a few proxy heads score them for all, and each head has its own budget."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from qna._core import checks
from qna._core.errors import InvalidInput
from qna.ops.block_sparse import blocks, check_heads

# scores of a proxy head that are formed at once
_AT_ONCE = 2**21


@dataclass(frozen=True)
class ProxyBlocks:
    """Blocks by ProxyAttn (Wang et al., ICLR 2026, arXiv 2509.24745, method section), without training.

    Heads are divided into `proxies` groups of neighbours. A group's proxy query and key are the means over
    its heads, after rotary positions; every `stride`-th position, from the first on, is scored::

        P = softmax(Q_g K_g^T / sqrt(d) + causal mask),       A[m, n] = max of P over block m x block n

    and A orders the blocks for all heads of the group. How many a head keeps, its queries in the last block
    say, with their own causal softmax over all keys::

        a = mean over these queries of softmax(q K^T / sqrt(d)), summed inside blocks
        b = the fewest blocks, largest a first, that together hold gamma of it

    Row m keeps its ``min(m + 1, max(b, least / block))`` best blocks, and beside them its own block and the
    first `sinks`, whatever A says.

    Of N positions in R blocks it costs ``G N^2 / (2 stride^2) d`` multiply-adds for G proxies and
    ``h block N d`` for budgets. Scores are formed by rows of blocks, about 2 million numbers a proxy head at
    once, and never N^2; what is given back has h R^2 bytes.

    No code of the authors can be read. Ours are: blocks of 128; the first block and a row's own come on top
    of its budget; the last block's queries are the last `block` positions, also where N is no multiple of it,
    and see every key, not every `stride`-th; the budget is a number of blocks, the same for all rows.

    A budget looks at the last queries, so that a row's number of blocks depends on what comes later; which
    ones they are does not.

    Args:
        block: positions of a block.
        stride: of the positions that proxies score, a divisor of `block`; 4 as published.
        proxies: groups G of heads: 1 (for Llama-3.1-8B) or 4 (for Qwen2.5-7B) in the paper. Each must hold
            whole groups of queries that share keys, or lie in one.
        gamma: part of the attention that a head's budget holds, from above 0 to 1, which is everything; 0.95
            or 0.90 in the paper.
        least: positions that every budget covers at least; 2048 as published.
        sinks: first blocks that all keep.

    Raises:
        InvalidInput: numbers out of range, a stride that does not divide the block.
    """

    block: int = 128
    stride: int = 4
    proxies: int = 1
    gamma: float = 0.95
    least: int = 2048
    sinks: int = 1

    def __post_init__(self):
        owner = type(self).__name__
        checks.positive(owner, block=self.block, stride=self.stride, proxies=self.proxies)
        checks.natural(owner, least=self.least, sinks=self.sinks)
        if self.block % self.stride:
            raise InvalidInput(
                f"{owner}: stride must divide block, got stride={self.stride} and block={self.block}"
            )
        if isinstance(self.gamma, bool) or not 0 < self.gamma <= 1:
            raise InvalidInput(f"{owner}: gamma must be above 0 and at most 1, got {self.gamma!r}")

    def choose(self, query: Tensor, key: Tensor) -> Tensor:
        """The blocks that are kept: as `ChoosesBlocks.choose`.

        A NaN among keys keeps everything, so that it is met as in dense attention.

        Raises:
            InvalidInput: shapes that do not fit, or groups of heads that cut through shared keys.
        """
        check_heads(type(self).__name__, query=query, key=key)
        self.check_heads(query.shape[1], key.shape[1])
        rows = blocks(query.shape[-2], self.block)
        own = torch.arange(rows, device=query.device)
        later = own > own[:, None]
        if self.gamma == 1:
            return (~later).expand(*query.shape[:2], rows, rows)
        scores = self.scores(query, key)
        # a NaN counts above all probabilities
        scores = scores.masked_fill(scores.isnan(), 2.0)
        always = (own < self.sinks) | (own == own[:, None])
        scores = scores.masked_fill(later, -torch.inf)
        # the place of each block in the order of its row; of equals the earlier comes first
        places = scores.argsort(dim=-1, descending=True, stable=True).argsort(-1)
        places = places.repeat_interleave(query.shape[1] // self.proxies, 1)
        counts = self.budgets(query, key).clamp(min=-(-self.least // self.block))
        return (always | (places < counts[..., None, None])) & ~later

    def check_heads(self, heads: int, kv_heads: int) -> None:
        """Refuse groups of heads that cut through queries that share keys.

        Raises:
            InvalidInput: with the numbers that go.
        """
        fits = [g for g in range(1, heads + 1) if heads % g == 0 and (kv_heads % g == 0 or g % kv_heads == 0)]
        if self.proxies not in fits:
            raise InvalidInput(
                f"{type(self).__name__}: {self.proxies} proxies do not divide {heads} heads of queries along "
                f"{kv_heads} of keys; take one of {', '.join(map(str, fits))}"
            )

    def proxy(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Every `stride`-th query and key, averaged over the heads of each group: (B, G, M, d) twice."""
        exact = torch.promote_types(query.dtype, torch.float32)
        groups = self.proxies
        sampled = (t[:, :, :: self.stride].to(exact) for t in (query, key))
        # the mean over the keys of heads, each as often as queries share it, is that over heads of keys
        query, key = (
            t.unflatten(1, (groups, -1)).mean(2)
            if t.shape[1] >= groups
            else t.repeat_interleave(groups // t.shape[1], 1)
            for t in sampled
        )
        return query, key

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        """A: the largest probability of a pair in each pair of blocks, (B, G, R, R), 0 above the diagonal."""
        rows, per = blocks(query.shape[-2], self.block), self.block // self.stride
        query, key = self.proxy(query, key)
        scale = query.shape[-1] ** -0.5
        count = query.shape[-2]
        step = max(1, _AT_ONCE // (per * count))
        made = []
        for first in range(0, rows, step):
            last = min(first + step, rows)
            start, stop = first * per, min(last * per, count)
            logits = (query[:, :, start:stop] * scale) @ key[:, :, :stop].transpose(-1, -2)
            places = torch.arange(stop, device=query.device)
            hidden = places[start:] > places[start:, None]
            logits[..., start:].masked_fill_(hidden, -torch.inf)
            sums = logits.logsumexp(-1, keepdim=True)
            # the largest logit of a block is its largest probability
            logits = F.pad(logits, (0, last * per - stop), value=-torch.inf)
            highest = (logits.unflatten(-1, (last, per)).amax(-1) - sums).exp()
            highest = F.pad(highest, (0, rows - last, 0, (last - first) * per - (stop - start)))
            made.append(highest.unflatten(-2, (last - first, per)).amax(-2))
        return torch.cat(made, -2)

    def budgets(self, query: Tensor, key: Tensor) -> Tensor:
        """Blocks b that each head keeps in a row, before `least` and the causal mask: int64 (B, h)."""
        rows = blocks(query.shape[-2], self.block)
        if self.gamma == 1:
            return torch.full(query.shape[:2], rows, device=query.device)
        masses = block_masses(query, key, self.block).sort(-1, descending=True).values.cumsum(-1)
        # of what is no number none holds enough, and all are kept
        enough = (masses >= self.gamma).sum(-1)
        return (rows - enough + 1).clamp(max=rows)


def block_masses(query: Tensor, key: Tensor, block: int) -> Tensor:
    """Attention that blocks of keys get of the last `block` queries: (B, h, R), which sums to 1.

    Args:
        query: (B, h, N, d).
        key: (B, h', N, d).
        block: positions of a block.
    """
    exact = torch.promote_types(query.dtype, torch.float32)
    length, count = query.shape[-2], min(block, query.shape[-2])
    shared, rows = query.shape[1] // key.shape[1], blocks(length, block)
    places = torch.arange(length, device=query.device)
    hidden = places > places[length - count :, None]
    scale = query.shape[-1] ** -0.5
    made = []
    # a head after the other: all at once would be as large as several maps
    for head in range(query.shape[1]):
        last = query[:, head, length - count :].to(exact) * scale
        logits = last @ key[:, head // shared].to(exact).transpose(-1, -2)
        shares = logits.masked_fill(hidden, -torch.inf).softmax(-1).mean(-2)
        made.append(F.pad(shares, (0, rows * block - length)).unflatten(-1, (rows, block)).sum(-1))
    return torch.stack(made, 1)


def kept_share(kept: Tensor) -> float:
    """Part of the blocks on and below the diagonal that is kept."""
    rows = kept.shape[-1]
    every = math.prod(kept.shape[:-2]) * rows * (rows + 1) // 2
    return float(kept.tril().sum()) / every
