"""Losses that arise inside a network: handed to the one call of the network that they belong to."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from qna._core.with_losses import WithLosses
from qna.parts.recompute import recomputing


class LossOutlet:
    """Where a part leaves the loss of a forward pass in training; whoever reads it takes it away.

    A loss stays until the network's own output is made, or the next forward pass leaves another: neither a
    second call nor a copy of the network sees it. What a checkpointed block computes again for its gradient
    leaves nothing.
    """

    def __init__(self):
        self._left: list[Tensor] = []

    def leave(self, loss: Tensor) -> None:
        """Leave one number in the place of what nobody took."""
        if not recomputing():
            self._left = [loss]

    def take(self) -> list[Tensor]:
        """What was left since the last time."""
        left, self._left = self._left, []
        return left

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_left": []}


class ReturnLosses:
    """A forward hook: in training the network returns `WithLosses` with the mean over what its outlets hold.

    Args:
        name: of the loss.
        weight: that its mean over the layers is multiplied with.
        outlets: whose losses it takes.
    """

    def __init__(self, name: str, weight: float, outlets: Iterable[LossOutlet]):
        self.name = name
        self.weight = weight
        self.outlets = list(outlets)

    def __call__(self, network: nn.Module, given: object, output: object) -> object:
        """The output, with the losses where there are any."""
        left = [loss for outlet in self.outlets for loss in outlet.take()]
        return with_mean(output, self.name, self.weight, left if network.training else [])


def with_mean(output: object, name: str, weight: float, left: list[Tensor]) -> object:
    """`WithLosses` of an output, with `weight` times the mean of `left`; itself where nothing was left."""
    if not left:
        return output
    found = {name: weight * torch.stack(left).mean()}
    if isinstance(output, WithLosses):
        return output._replace(losses={**output.losses, **found})
    return WithLosses(output, found)
