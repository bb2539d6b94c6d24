"""What the registry knows of a family of networks of volumes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from qna._core.about import About


class VolumeVariant(Protocol):
    """One size of a family, a frozen dataclass; the family's own fields stand beside these."""

    @property
    def parameters(self) -> int | None:
        """Exact count with one channel and two classes; None where a field was changed."""
        ...

    def varied(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """This variant, called `name`, with other fields.

        Raises:
            UnknownName: for what is no field, with the nearest.
        """
        ...


@dataclass(frozen=True)
class VolumeFamily:
    """A family of networks (B, in_chans, D, H, W) -> logits (B, num_classes, D, H, W), of any size.

    In training a network may return `WithLosses`, with logits of other sizes that are supervised.

    Attributes:
        name: of the family.
        about: the published work.
        network: makes a model of (variant, in_chans=, num_classes=).
        variants: sizes by the name under which they are created.
    """

    name: str
    about: About
    network: Callable[..., nn.Module]
    variants: Mapping[str, VolumeVariant]
