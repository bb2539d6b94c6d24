"""The loss by which features of two modalities find each other in a batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from qna._core.errors import InvalidInput


def contrastive_loss(a: Tensor, b: Tensor, *, temperature: float | Tensor = 0.07) -> Tensor:
    """Mean over both directions of the cross entropy by which each finds its own among the other's.

        s_ij = cos(a_i, b_j) / temperature        (CE(s, i) + CE(s^T, i)) / 2

    as CLIP (Radford et al., ICML 2021). With B = 1 it is 0.

    Args:
        a: (B, D), one modality.
        b: (B, D), the other; row i belongs to row i of `a`.
        temperature: above 0.

    Raises:
        InvalidInput: shapes that differ, or a temperature that is not above 0.
    """
    if a.ndim != 2 or a.shape != b.shape:
        raise InvalidInput(
            f"contrastive_loss: a and b must both be (B, D), got {tuple(a.shape)}, {tuple(b.shape)}"
        )
    if not isinstance(temperature, Tensor) and not temperature > 0:
        raise InvalidInput(f"contrastive_loss: temperature must be above 0, got {temperature}")
    scores = F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).mT / temperature
    own = torch.arange(len(a), device=a.device)
    return (F.cross_entropy(scores, own) + F.cross_entropy(scores.mT, own)) / 2
