"""Batches of sequences of tokens, and what of them is scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# target of a position that is not scored, as torch's cross entropy has it
UNSCORED = -100


class TokenBatch(NamedTuple):
    """Sequences of one length.

    Attributes:
        tokens: int64 (B, N), what a network reads.
        targets: int64 (B, N), the token that follows each; `UNSCORED` where that is not asked.
    """

    tokens: Tensor
    targets: Tensor


def stacked(sequences: Sequence[tuple[np.ndarray, np.ndarray]]) -> TokenBatch:
    """A batch of pairs of tokens and targets, (N,) each."""
    tokens, targets = (np.stack(part).astype(np.int64) for part in zip(*sequences, strict=True))
    return TokenBatch(torch.from_numpy(tokens), torch.from_numpy(targets))
