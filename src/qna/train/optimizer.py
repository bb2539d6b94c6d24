"""AdamW with the paper's decay rules, and the learning rate as a function of the step."""

from __future__ import annotations

import math

import torch
from torch import nn

from qna.train.config import OptimOptions


def decay_groups(network: nn.Module, weight_decay: float) -> list[dict]:
    """Split the trainable parameters into decayed and exempt, as AdamW's groups.

    Exempt is what ``network.no_weight_decay()`` names, by full name or by last part: in QnA-ViT the relative
    position biases and the query weights. Everything else decays, the learned queries, biases and LayerNorm
    scales included, as in the paper's own training.
    """
    named = getattr(network, "no_weight_decay", set)()
    decayed, exempt = [], []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            is_exempt = name in named or name.rpartition(".")[2] in named
            (exempt if is_exempt else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": exempt, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def build_optimizer(network: nn.Module, options: OptimOptions) -> torch.optim.AdamW:
    """AdamW over `decay_groups`; the rate is set before every step by `learning_rate`."""
    return torch.optim.AdamW(decay_groups(network, options.weight_decay), lr=0.0)


def learning_rate(step: int, *, peak: float, warmup: int, total: int, schedule: str = "cosine") -> float:
    """Rate of the update after `step` updates: linear from 0 to `peak` over `warmup`, then cosine to 0.

    Args:
        step: updates made.
        peak: highest rate.
        warmup: updates of the rise.
        total: updates of the whole run; the cosine's rate would be 0 there.
        schedule: "cosine", or "constant" for `peak` to the end.
    """
    if step < warmup:
        return peak * step / warmup
    if schedule == "constant":
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))
