"""What the registry knows of a mixer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn


@dataclass(frozen=True)
class MixerExample:
    """A mixer's class with one small way to build and call it, from which its contract is tested.

    Attributes:
        build: the class; called as ``build(dim, **arguments)``.
        space: sizes of a small map that it takes, one per space axis.
        dim: channels of that map.
        arguments: keyword arguments.
        out_space: sizes of the map that comes out, () where the space axes are pooled away; None where they
            stay as they are.
    """

    build: type[nn.Module]
    space: tuple[int, ...]
    dim: int = 8
    arguments: Mapping[str, Any] = field(default_factory=dict)
    out_space: tuple[int, ...] | None = None
