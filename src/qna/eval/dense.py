"""What trained networks that answer for places on images have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import nn

from qna._core.errors import InvalidInput


class NamedClasses(Protocol):
    """Data of named classes."""

    @property
    def name(self) -> str:
        """For texts."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of their numbers."""
        ...


@dataclass(frozen=True)
class DenseNetwork:
    """A trained network and what its numbers mean.

    Attributes:
        name: what it is called in tables.
        network: in evaluation mode.
        classes: names of what it tells apart, in their order.
    """

    name: str
    network: nn.Module
    classes: tuple[str, ...]

    @property
    def parameters(self) -> int:
        """Numbers in the network's parameters."""
        return sum(p.numel() for p in self.network.parameters())

    def require_fit(self, data: NamedClasses) -> None:
        """Check that it means the classes of `data`.

        Raises:
            InvalidInput: if it does not.
        """
        if self.classes != data.classes:
            raise InvalidInput(
                f"{self.name} learned the classes {', '.join(self.classes)}, and {data.name} has "
                f"{', '.join(data.classes)}; give the data set that it was trained on"
            )
