"""What kind of attention a matrix is: even or concentrated, alike or different by heads, far or near."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qna._core.errors import InvalidInput


@dataclass(frozen=True)
class AttentionIndicators:
    """Five indicators of Xue et al. (arXiv 2510.11602, section 4.4), means over sequences and heads.

    Attributes:
        entropy: -sum a log a over all entries of a head's matrix, nats: large where attention is even, -inf
            where an entry is negative.
        concentration: its Frobenius norm.
        head_diversity: standard deviation over the heads (of all of them, not of a sample), mean over the
            N (N + 1) / 2 pairs that a causal matrix has; None where heads are not told apart.
        sink: what the first position gets, mean over all that ask.
        local_focus: by distance: what the position so far before gets, mean over those that have one. The
            paper's picture shows twice that.
    """

    entropy: float
    concentration: float
    head_diversity: float | None
    sink: float
    local_focus: dict[int, float]


def attention_indicators(shares: Tensor, distances: Sequence[int] = (0, 1, 2, 3)) -> AttentionIndicators:
    """The indicators of causal attention.

    Args:
        shares: (B, h, N, N), rows of what each position gets of each other; h of 1 where heads are one.
        distances: of `AttentionIndicators.local_focus`, each below N.

    Raises:
        InvalidInput: another shape, or a distance that no pair has.
    """
    if shares.ndim != 4 or shares.shape[2] != shares.shape[3] or 0 in shares.shape:
        raise InvalidInput(f"attention must be (B, heads, N, N), none of them 0, got {tuple(shares.shape)}")
    n = shares.shape[-1]
    if strange := [d for d in distances if not 0 <= d < n]:
        raise InvalidInput(f"of {n} positions distances are from 0 to {n - 1}, got {strange[0]}")
    shares = shares.double()
    spread = shares.std(1, correction=0).tril().sum((-2, -1)) * 2 / (n * (n + 1))
    return AttentionIndicators(
        entropy=float(torch.special.entr(shares).sum((-2, -1)).mean()),
        concentration=float(shares.square().sum((-2, -1)).sqrt().mean()),
        head_diversity=float(spread.mean()) if shares.shape[1] > 1 else None,
        sink=float(shares[..., 0].mean()),
        local_focus={d: float(shares.diagonal(-d, -2, -1).mean()) for d in distances},
    )


@torch.no_grad()
def indicators_of(
    network: nn.Module, *inputs: Tensor, distances: Sequence[int] = (0, 1, 2, 3)
) -> dict[str, AttentionIndicators]:
    """The indicators of every layer with attention while `network` reads `inputs`, by the layer's name.

    Of mixers whose `attention_map` is (B, heads, N, N) heads count each; of others that show their rows, the
    mean over heads. Where a decoder takes other sequences through its layers, each layer is asked about the
    decoder's own, which it reads first. It is run in evaluation mode, its mode is put back afterwards.
    """
    found: dict[str, AttentionIndicators] = {}

    def record(name: str, layer: Any, given: tuple[Tensor, ...]) -> None:
        if name in found:
            return
        shares = layer.attention_map(*given) if hasattr(layer, "attention_map") else None
        if shares is None or shares.ndim != 4 or shares.shape[2] != shares.shape[3]:
            positions = given[0][0, ..., 0].numel()
            shares = layer.attention_rows(*given).dense(positions)[:, None]
        found[name] = attention_indicators(shares, distances)

    layers = [(name, m) for name, m in network.named_modules() if hasattr(m, "attention_rows")]
    hooks = [
        module.register_forward_pre_hook(lambda m, given, name=name: record(name, m, given))
        for name, module in layers
    ]
    training = network.training
    network.eval()
    try:
        network(*inputs)
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return found
