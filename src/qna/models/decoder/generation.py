"""Text that goes on: tokens drawn one after the other from what a decoder makes of those before."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from qna._core import checks
from qna._core.errors import InvalidInput
from qna._core.seeds import derive_seed
from qna.models.decoder.network import Decoder
from qna.parts.kv_cache import CachePolicy


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: by which logits are divided; 0 takes the likeliest token (greedy).
        top_k: likeliest tokens that are drawn from; None for all.
        top_p: of these the fewest, likeliest first, that together have this probability; 1 for all.
        seed: of the draws.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self):
        if not 0 <= self.temperature < math.inf:
            raise InvalidInput(f"temperature must be at least 0 and finite, got {self.temperature!r}")
        if self.top_k is not None:
            checks.positive("sampling", top_k=self.top_k)
        if not 0 < self.top_p <= 1:
            raise InvalidInput(f"top_p must be above 0 and at most 1, got {self.top_p!r}")
        if self.temperature == 0 and (self.top_k is not None or self.top_p < 1):
            raise InvalidInput("temperature 0 takes the likeliest token, and top_k and top_p change nothing")

    def probabilities(self, logits: Tensor) -> Tensor:
        """Of each token to be the next: (B, vocabulary), in single precision at least.

        Args:
            logits: (B, vocabulary).
        """
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.temperature == 0:
            return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
        ordered, order = (logits / self.temperature).sort(dim=-1, descending=True, stable=True)
        if self.top_k is not None:
            ordered[:, self.top_k :] = -torch.inf
        shares = ordered.softmax(-1)
        if self.top_p < 1:
            # the token with which the sum reaches top_p is among them
            shares = shares.masked_fill(shares.cumsum(-1) - shares >= self.top_p, 0.0)
            shares = shares / shares.sum(-1, keepdim=True)
        return torch.zeros_like(shares).scatter_(-1, order, shares)


@torch.inference_mode()
def generate(
    network: Decoder,
    prompt: Tensor,
    *,
    count: int,
    sampling: Sampling | None = None,
    policy: CachePolicy | None = None,
    dtype: torch.dtype | None = None,
) -> Iterator[Tensor]:
    """The next tokens of sequences, as they are made.

    Args:
        network: in evaluation mode.
        prompt: int64 (B, N), N at least 1.
        count: tokens to make of each.
        sampling: how they are chosen; None for `Sampling()`.
        policy: what layers keep of keys and values; None for all that they can see.
        dtype: of what is kept; None for the weights'.

    Yields:
        int64 (B,), `count` times.

    Raises:
        InvalidInput: as `Decoder.step` and `Decoder.init_state`.
    """
    checks.positive("generate", count=count)
    sampling = sampling or Sampling()
    # draws are made on the CPU, so that every device makes the same
    draws = torch.Generator().manual_seed(derive_seed(sampling.seed, "generate"))
    state = network.init_state(prompt.shape[0], dtype=dtype, policy=policy)
    tokens = prompt
    for _ in range(count):
        logits, state = network.step(tokens, state)
        shares = sampling.probabilities(logits[:, -1])
        if sampling.temperature == 0:
            chosen = shares.argmax(-1)
        else:
            chosen = torch.multinomial(shares.cpu(), 1, generator=draws)[:, 0].to(prompt.device)
        yield chosen
        tokens = chosen[:, None]
