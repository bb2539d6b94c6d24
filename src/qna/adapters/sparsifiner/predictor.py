"""What Sparsifiner asks before attention: which keys each query of a head is going to need."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna.adapters._parts.chosen_keys import largest, plain_cpu


class MaskPredictor(nn.Module):
    """An estimate of attention of low rank, of which each row keeps its largest entries.

    Of one head, with q and k (N, d) the attention's own, P and Q (N, K), and W_q, W_k (d, d / c) with biases
    that all heads share::

        coefficients = softmax(s (q W_q) ((k W_k)^T P))     (N, K)
        estimate = coefficients Q^T                         (N, N)

    The softmax is that of the coefficients, not of the estimate. That is what is fitted to attention. What
    chooses is cut: of each row of coefficients the largest stay, of Q the absolute values above a threshold,
    and nothing is normalised again. Tokens before the image's have no row, but are columns like any other.

    The projections take ``2 N d^2 / c + 2 N K d / c`` multiply-adds a head, the estimate that chooses N^2
    times the coefficients that stay.

    Args:
        head_dim: channels d of a head.
        tokens: N, prefix tokens included.
        prefix: tokens before the image's.
        config: with the fields reduce_tokens, reduce_channels, shared_basis, coefficients, basis_threshold.
        scale: s.
    """

    def __init__(self, head_dim: int, tokens: int, prefix: int, config: Any, scale: float):
        super().__init__()
        self.prefix = prefix
        self.scale = scale
        self.coefficients = config.coefficients
        self.threshold = config.basis_threshold
        self.proj_c_q = nn.Linear(head_dim, head_dim // config.reduce_channels)
        self.proj_c_k = nn.Linear(head_dim, head_dim // config.reduce_channels)
        basis = tokens, tokens // config.reduce_tokens
        self.proj_n = nn.Parameter(torch.empty(basis))
        self.proj_back_n = None if config.shared_basis else nn.Parameter(torch.empty(basis))
        for projection in (self.proj_c_q, self.proj_c_k):
            nn.init.trunc_normal_(projection.weight, std=0.02)
            nn.init.zeros_(projection.bias)
        for table in (self.proj_n, self.proj_back_n):
            if table is not None:
                nn.init.trunc_normal_(table, std=0.02)

    @property
    def basis(self) -> Tensor:
        """Q, (N, K)."""
        return self.proj_n if self.proj_back_n is None else self.proj_back_n

    def weigh(
        self, q: Tensor, k: Tensor, active: Tensor | None = None, places: Tensor | None = None
    ) -> Tensor:
        """Coefficients (B, heads, M, K) of the M image tokens.

        Args:
            q: (B, heads, n, d).
            k: the same.
            active: bool (B, M), image tokens that count as keys; None for all.
            places: int64 (B, M), which of the N - prefix image tokens there still are; None for all.
        """
        query, key = self.proj_c_q(q[:, :, self.prefix :]), self.proj_c_k(k)
        if active is not None:
            key = key * F.pad(active, (self.prefix, 0), value=True)[:, None, :, None]
        down = self.proj_n if places is None else self.proj_n[self._columns(places)][:, None]
        return (query @ (key.transpose(-2, -1) @ down) * self.scale).softmax(-1)

    def fitted(self, q: Tensor, k: Tensor) -> Tensor:
        """The estimate that is fitted to attention, (B, heads, M, N)."""
        return self.weigh(q, k) @ self.basis.t()

    def estimate(
        self, q: Tensor, k: Tensor, active: Tensor | None = None, places: Tensor | None = None
    ) -> Tensor:
        """The estimate that chooses, (B, heads, M, n); arguments as of `weigh`."""
        weights = self.weigh(q, k, active, places)
        # what autocast made of the coefficients is not to be rounded again
        weights = weights.to(torch.promote_types(weights.dtype, self.basis.dtype))
        basis = F.threshold(self.basis.abs(), self.threshold, 0.0).t()
        count = min(self.coefficients, basis.shape[0])
        chosen = largest(weights.detach(), count)
        kept = weights.gather(-1, chosen)
        if plain_cpu(weights) and not (torch.is_grad_enabled() and weights.requires_grad):
            # sums of few rows of the basis, where a product would go through all
            rows = chosen.view(-1, count), basis.contiguous()
            found = F.embedding_bag(*rows, mode="sum", per_sample_weights=kept.view(-1, count))
            found = found.view(*weights.shape[:-1], basis.shape[1])
        else:
            found = torch.zeros_like(weights).scatter(-1, chosen, kept) @ basis
        if places is not None:
            columns = self._columns(places)[:, None, None]
            found = found.gather(-1, columns.expand(*found.shape[:-1], -1))
        if active is not None:
            absent = ~F.pad(active, (self.prefix, 0), value=True)
            found = found.masked_fill(absent[:, None, None], float("-inf"))
        return found

    def _columns(self, places: Tensor) -> Tensor:
        """Of the tokens at `places` of the image, and of those before them: (B, n) of N."""
        before = torch.arange(self.prefix, device=places.device).expand(places.shape[0], -1)
        return torch.cat([before, places + self.prefix], 1)

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        count: int | None = None,
        active: Tensor | None = None,
        places: Tensor | None = None,
    ) -> Tensor:
        """What is fitted, as `fitted`; or with a `count` what is chosen, as `choose`."""
        return self.fitted(q, k) if count is None else self.choose(q, k, count, active, places)

    @torch.no_grad()
    def choose(
        self,
        q: Tensor,
        k: Tensor,
        count: int,
        active: Tensor | None = None,
        places: Tensor | None = None,
    ) -> Tensor:
        """Keys of each image token, int64 (B, heads, M, count): no gradient passes through the choice."""
        return largest(self.estimate(q, k, active, places), count)
