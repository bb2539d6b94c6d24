"""Losses that arise inside an adapted network: handed to the one call that they belong to."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from qna._core.with_losses import WithLosses


class LossOutlet(nn.Module):
    """Where a part leaves the loss of a forward pass in training; whoever reads it takes it away.

    A loss stays until the network's own output is made, in the same call, and never longer: neither a second
    call nor a copy of the network sees it.
    """

    def __init__(self):
        super().__init__()
        self._left: list[Tensor] = []

    def leave(self, loss: Tensor) -> None:
        """Leave one number."""
        self._left.append(loss)

    def take(self) -> list[Tensor]:
        """All that was left since the last time."""
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
        left = [loss for outlet in self.outlets for loss in outlet.take()]
        if not network.training or not left:
            return None
        found = {self.name: self.weight * torch.stack(left).mean()}
        if isinstance(output, WithLosses):
            return output._replace(losses={**output.losses, **found})
        return WithLosses(output, found)

    def put_into(self, network: nn.Module) -> None:
        """Hang it on a network, and clear its outlets before each call.

        Blocks that are computed again in the backward pass leave their losses once more.
        """
        network.register_forward_pre_hook(ForgetLosses(self.outlets))
        network.register_forward_hook(self)


class ForgetLosses:
    """A forward pre-hook that takes away what outlets hold from before."""

    def __init__(self, outlets: list[LossOutlet]):
        self.outlets = outlets

    def __call__(self, network: nn.Module, given: object) -> None:
        """Clear the outlets."""
        for outlet in self.outlets:
            outlet.take()
