"""What a network returns in training if it has losses of its own."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Supervised(NamedTuple):
    """A further output that the task's loss reads as it reads the output.

    Attributes:
        output: of the same kind as the network's; of classifiers also logits of positions, (B, *positions,
            classes).
        weight: of its loss.
    """

    output: Any
    weight: float


class WithLosses(NamedTuple):
    """An output and losses that are added to the task's.

    A tuple with names, so that what wraps a network (DDP, FSDP2, autocast) finds the tensors in it.

    Attributes:
        output: what the task's loss reads.
        losses: by name; each is one number, weighted already.
        supervised: by name, outputs of heads inside the network (deep supervision).
    """

    output: Any
    losses: Mapping[str, Tensor]
    supervised: Mapping[str, Supervised] = MappingProxyType({})
