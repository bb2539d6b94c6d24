"""Which parameters of a network weight decay leaves alone."""

from __future__ import annotations

from torch import nn

from qna.parts.protocols import ExemptsFromDecay


def exempt_names(network: nn.Module) -> set[str]:
    """Full names of the parameters that the modules inside `network` exempt."""
    names = set()
    for prefix, module in network.named_modules():
        if isinstance(module, ExemptsFromDecay) and module is not network:
            names |= {f"{prefix}.{name}" for name in module.no_weight_decay()}
    return names
