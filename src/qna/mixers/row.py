"""What the registry knows of a mixer."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from qna._core.about import About
from qna._core.errors import InvalidInput


@dataclass(frozen=True)
class Example:
    """One small way to build and call a mixer, from which its contract is tested.

    Attributes:
        space: sizes of a small map that it takes, one per space axis.
        arguments: keyword arguments of its class, beside `dim`.
        dim: channels of that map.
        out_space: sizes of the map that comes out, () where the space axes are pooled away; None where they
            stay as they are.
        long: arguments in the place of those, where a causal mixer is measured on thousands of positions.
    """

    space: tuple[int, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    dim: int = 8
    out_space: tuple[int, ...] | None = None
    long: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Traits:
    """What decides which parts of the contract apply to a mixer.

    Attributes:
        axes: space axes of its maps.
        heads: it takes `num_heads`, which must divide `dim`.
        strided: it takes `stride`.
        any_size: maps of any size and aspect ratio, 1 x 1 included.
        batch_coupled: what comes out of one image depends on the others in the batch.
        pools: its maps become one vector, (B, C').
        upsamples: its maps become finer.
        causal: a mixer of sequences of which no position depends on a later one, and that takes sequences in
            parts: `qna.parts.protocols.GoesOn`.
    """

    axes: int
    heads: bool = False
    strided: bool = False
    any_size: bool = True
    batch_coupled: bool = False
    pools: bool = False
    upsamples: bool = False
    causal: bool = False


@dataclass(frozen=True)
class MixerRow:
    """A mixer of the registry.

    A mixer is a module with `dim`, `out_dim` and ``forward(x: (B, *space, C)) -> (B, *space', C')``; what
    else it can do is asked by method, see `qna.parts.protocols`.

    Attributes:
        build: the class; called as ``build(dim, **arguments)``.
        about: the published work.
        example: a small way to build and call it.
        traits: what decides which parts of the contract apply.
        exempt: test of the contract -> why the mixer fails it. An exemption that is no longer needed makes
            the test fail.
    """

    build: type[nn.Module]
    about: About
    example: Example
    traits: Traits
    exempt: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name in the registry: the class's."""
        return self.build.__name__

    def create(self, dim: int, **arguments: Any) -> nn.Module:
        """Build the mixer for `dim` channels.

        Raises:
            InvalidInput: for arguments that it does not take or lacks, or whose values it refuses.
        """
        takes = dict(inspect.signature(self.build).parameters)
        takes.pop("dim")
        if strange := [name for name in arguments if name not in takes]:
            known = f"takes {', '.join(takes)}" if takes else "takes dim alone"
            raise InvalidInput(f"{self.name} does not take {', '.join(strange)}; beside dim it {known}")
        required = [name for name, parameter in takes.items() if parameter.default is parameter.empty]
        if missing := [name for name in required if name not in arguments]:
            raise InvalidInput(f"{self.name} needs {', '.join(missing)}, which has no default")
        return self.build(dim, **arguments)
