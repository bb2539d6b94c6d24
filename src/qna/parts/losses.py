"""Losses that arise inside a network: handed to the one call of the network that they belong to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

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


class LeavesLosses(Protocol):
    """Whose losses are taken: an outlet, or a part that has one."""

    def take(self) -> list[Tensor]:
        """What was left since the last time."""
        ...


class ReturnLosses:
    """A forward hook: in training the network returns `WithLosses` with the mean over what its outlets hold.

    Args:
        name: of the loss; one of that name that is there already is added to.
        weight: that its mean over the layers is multiplied with.
        outlets: whose losses it takes.
    """

    def __init__(self, name: str, weight: float, outlets: Iterable[LeavesLosses]):
        self.name = name
        self.weight = weight
        self.outlets = list(outlets)

    def __call__(self, network: nn.Module, given: object, output: object) -> object:
        """The output, with the losses where there are any."""
        left = [loss for outlet in self.outlets for loss in outlet.take()]
        return with_mean(output, self.name, self.weight, left if network.training else [])

    def put_into(self, network: nn.Module) -> None:
        """Hang it on a network."""
        network.register_forward_hook(self)


def with_mean(output: object, name: str, weight: float, left: list[Tensor]) -> object:
    """`WithLosses` of an output, with `weight` times the mean of `left`; itself where nothing was left."""
    if not left:
        return output
    mean = weight * torch.stack(left).mean()
    if isinstance(output, WithLosses):
        return output._replace(losses={**output.losses, name: output.losses.get(name, 0) + mean})
    return WithLosses(output, {name: mean})
