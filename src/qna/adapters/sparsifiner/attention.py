"""timm's attention whose queries see the keys that a predictor chooses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qna._core.errors import InvalidInput
from qna.adapters._parts.around import AroundAttention
from qna.adapters._parts.attention import attended, finished, projected
from qna.adapters._parts.chosen_keys import attend_chosen
from qna.adapters.sparsifiner.predictor import MaskPredictor
from qna.parts.losses import LossOutlet


class SparseAttention(AroundAttention):
    """timm's attention with a `MaskPredictor`; all other parts are the attention's own.

    An image token sees the ``ceil(keep_rate N)`` of N keys with the largest estimate, in each head its own;
    tokens before the image's see all. In the epochs that fit the predictor attention is dense in training,
    and leaves ``sum (estimate - attention)^2`` over the batch, heads, image tokens and keys.

    Args:
        attention: whose place it takes.
        predictor: of its masks.
        tokens: N.
        config: the adapter's configuration.
    """

    def __init__(self, attention: Any, predictor: MaskPredictor, tokens: int, config: Any):
        super().__init__(attention)
        self.mask_predictor: MaskPredictor | None = predictor
        self.tokens = tokens
        self.prefix = predictor.prefix
        self.config = config
        self.reconstructs = config.reconstructs(0)
        self.outlet = LossOutlet()

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Fit the predictor in this epoch's training, or train with its masks."""
        self.reconstructs = self.config.reconstructs(epoch)

    @property
    def fits(self) -> bool:
        """Whether a call fits the predictor, and is dense."""
        return self.training and self.reconstructs and self.mask_predictor is not None

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """(B, N, C) -> the same."""
        if attn_mask is not None or is_causal:
            raise InvalidInput("sparsifiner takes no mask of tokens")
        return self.attend(x)[0]

    def attend(
        self, x: Tensor, active: Tensor | None = None, places: Tensor | None = None, left: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attention of all tokens, and what the first token pays to each.

        Args:
            x: (B, n, C).
            active: bool (B, M), image tokens that are there; the others hold zeros. None for all.
            places: int64 (B, M), which of the image's tokens these are; None for all.
            left: how many image tokens of an image are there, where some are not.

        Returns:
            (B, n, C), and the paid ones (B, n), a mean over heads.
        """
        columns = x.shape[1]
        if places is None and columns != self.tokens:
            raise InvalidInput(
                f"sparsifiner was put around {self.tokens} tokens, got {columns}; apply it to a network of "
                "the size of image that it is to read"
            )
        q, k, v = projected(self, x)
        if self.mask_predictor is None:
            return finished(self, attended(self, q, k, v), x), self._paid(q, k)
        if self.fits:
            return finished(self, self._fitted(q, k, v), x), self._paid(q, k)
        if active is not None:
            there = F.pad(active, (self.prefix, 0), value=True)[:, None, :, None]
            k, v = k * there, v * there
        # of tokens that went, the authors count the image's alone, not those before them
        count = min(self.config.kept(self.tokens), columns if left is None else left)
        chosen = None
        if count < columns:
            chosen = self.mask_predictor(q.detach(), k.detach(), count, active, places)
        return finished(self, self._kept(q, k, v, chosen), x), self._paid(q, k)

    def _paid(self, q: Tensor, k: Tensor) -> Tensor:
        return (q[:, :, :1] * self.scale @ k.transpose(-2, -1)).softmax(-1)[:, :, 0].mean(1)

    def _fitted(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Dense attention, which the predictor is told to estimate; neither is told of the other's loss."""
        assert self.mask_predictor is not None
        weights = (q * self.scale @ k.transpose(-2, -1)).softmax(-1)
        found = self.mask_predictor(q.detach(), k.detach())
        self.outlet.leave(F.mse_loss(found, weights[:, :, self.prefix :].detach(), reduction="sum"))
        return self.attn_drop(weights) @ v

    def _kept(self, q: Tensor, k: Tensor, v: Tensor, chosen: Tensor | None) -> Tensor:
        """Attention of the image's tokens to chosen keys, and of those before them to all."""
        if chosen is None:
            return attended(self, q, k, v)
        image = q[:, :, self.prefix :]
        if self.training and self.attn_drop.p:
            seen = torch.zeros(*image.shape[:3], k.shape[2], dtype=torch.bool, device=k.device)
            seen = F.pad(seen.scatter_(-1, chosen, True), (0, 0, self.prefix, 0), value=True)
            scores = (q * self.scale @ k.transpose(-2, -1)).masked_fill(~seen, float("-inf"))
            return self.attn_drop(scores.softmax(-1)) @ v
        y = attend_chosen(image, k, v, chosen, self.scale)
        return torch.cat([attended(self, q[:, :, : self.prefix], k, v), y], 2) if self.prefix else y

    @torch.no_grad()
    def chosen_keys(self, x: Tensor) -> Tensor:
        """What each image token sees: int64 (B, heads, N - prefix, k) of the N tokens of x (B, N, C)."""
        if self.mask_predictor is None:
            raise InvalidInput("this attention is dense: it is a teacher's")
        q, k, _ = projected(self, x)
        return self.mask_predictor.choose(q, k, self.config.kept(self.tokens))

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds of a call of inference for x of `size` where only chosen products are computed."""
        batch, n, channels = size
        width = self.num_heads * self.head_dim
        image, count = n - self.prefix, min(self.config.kept(self.tokens), n)
        total = n * channels * 3 * width + n * width * self.proj.out_features
        if self.gate is not None:
            total += n * channels * width
        total += 2 * self.head_dim * self.num_heads * (self.prefix * n + image * count)
        predictor = self.mask_predictor
        if predictor is not None and count < n:
            reduced, basis = predictor.proj_c_q.out_features, predictor.proj_n.shape[1]
            each = 2 * image * self.head_dim * reduced + n * reduced * basis + image * reduced * basis
            total += self.num_heads * (each + image * n * min(predictor.coefficients, basis))
            total += self.num_heads * self.prefix * self.head_dim * reduced
        return batch * total
