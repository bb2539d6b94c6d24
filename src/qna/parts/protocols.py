"""What a mixer or a block may offer beside `forward`: each is asked by method, never by type.

Sizes are those of a whole map, (B, *space, C). Whoever asks runs ``isinstance(module, Protocol)``, which
looks for the methods alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from qna.parts.reach import Reach
from qna.parts.rows import PositionRows


@runtime_checkable
class CountsMacs(Protocol):
    """A layer with a formula for its multiply-adds, those of all parts inside it included."""

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds of a call with a map of `size`: products alone, no norms, activations, softmax."""
        ...


@runtime_checkable
class HoldsMaps(Protocol):
    """A layer, or a block of them, with a formula for its worst moment of inference."""

    def held(self, size: Sequence[int]) -> int:
        """Elements of all maps that live beside the input, of `size`, at the worst moment of a call.

        With the fused kernels, where the layer has any.
        """
        ...


@runtime_checkable
class ShowsAttention(Protocol):
    """A layer whose attention can be looked at."""

    def attention_map(self, x: Tensor) -> Tensor:
        """The softmax of the map `x`, at least fp32; the layer's docstring tells its axes."""
        ...

    def attention_received(self, x: Tensor) -> Tensor:
        """What each position of `x` gets: (B, *space), 1 where attention is even."""
        ...


@runtime_checkable
class ShowsRows(Protocol):
    """A layer whose attention is a matrix of positions to positions."""

    def attention_rows(self, x: Tensor) -> PositionRows:
        """The matrix for the map `x`, without its zeros: mean over heads; rows sum to 1."""
        ...


@runtime_checkable
class MovesPositions(Protocol):
    """A block that tells how the positions of its input become those of its output."""

    def position_step(self, x: Tensor) -> tuple[PositionRows, PositionRows | None]:
        """Rows of its mixer's attention on `x`, and those of its skip path; None where that keeps places.

        Raises:
            InvalidInput: if its mixer shows no attention.
        """
        ...


@runtime_checkable
class ExemptsFromDecay(Protocol):
    """A module with parameters that weight decay should leave alone."""

    def no_weight_decay(self) -> set[str]:
        """Their names, as the module names them."""
        ...


@runtime_checkable
class Fuses(Protocol):
    """A module that has a cheaper form for inference."""

    def fuse(self) -> object:
        """Take that form, in place; what comes out stays the same to rounding. Returns itself."""
        ...


@runtime_checkable
class FollowsEpochs(Protocol):
    """A module that does something else as training goes on."""

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Epoch `epoch` of `epochs`, from 0, begins or is gone on with; all depends on them alone."""
        ...


@runtime_checkable
class KeepsBeside(Protocol):
    """A module with tensors that training needs and that are no part of the network: those of a teacher."""

    def beside(self) -> Mapping[str, Tensor]:
        """The tensors by name, for the checkpoint of a run; empty where there are none yet."""
        ...

    def take_beside(self, network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Take them back from a checkpoint of `network`, which this is a part of.

        Raises:
            RuntimeError: if they are another network's.
        """
        ...


@runtime_checkable
class TellsReach(Protocol):
    """A layer (B, *space, C) -> (B, *space', out_dim) that tells of which positions it makes each position.

    That is all that it does: a shift of the map by whole steps shifts what comes out, and there are ``space'
    = ceil(space / stride)`` positions.
    """

    out_dim: int

    def reach(self, size: Sequence[int]) -> tuple[Reach, ...]:
        """Of each space axis, for a map of `size`."""
        ...
