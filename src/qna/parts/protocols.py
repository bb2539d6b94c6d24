"""What a mixer or a block may offer beside `forward`: each is asked by method, never by type.

Sizes are those of a whole map, (B, *space, C). Whoever asks runs ``isinstance(module, Protocol)``, which
looks for the methods alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from qna.parts.kv_cache import CachePolicy
from qna.parts.qk_source import QkSource
from qna.parts.reach import Reach
from qna.parts.rows import PositionRows
from qna.parts.sequence_state import SequenceState


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
class GatesHeads(Protocol):
    """A layer with a place for a gate between its heads and what joins them: `parts.head_gate.GatedHeads`."""

    dim: int
    num_heads: int

    @property
    def head_gate(self) -> nn.Module | None:
        """The gate; None where there is none."""
        ...

    def why_no_head_gate(self) -> str:
        """Why gates have no place in this layer, as it was made; empty where they have."""
        ...

    def gate_heads(self, gate: nn.Module) -> None:
        """Put a gate there: a module (x (B, *space, dim), y (B, *space, heads, head dim)) -> as y."""
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


@runtime_checkable
class GoesOn(Protocol):
    """A causal mixer, or a network of them, that can be given a sequence in parts."""

    def init_state(
        self, batch: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> SequenceState:
        """What is known before the first position; where and as what the parameters are by default."""
        ...

    def step(self, x: Tensor, state: SequenceState) -> tuple[Tensor, SequenceState]:
        """What `forward` makes of the next positions of a sequence, any number of them, and the next state.

        The state that is given stays as it was. Parts of a sequence, one after the other, give what
        `forward` gives of the whole.

        Raises:
            InvalidInput: the state is another mixer's, or of another number of sequences.
        """
        ...

    def state_bytes(self, size: Sequence[int], dtype: torch.dtype = ...) -> int:
        """Bytes of the state after sequences of `size` = (B, N, C), begun in `dtype`."""
        ...


@runtime_checkable
class KeepsByPolicy(Protocol):
    """A causal mixer whose keys and values are kept as a policy says."""

    def policy_state(
        self,
        batch: int,
        policy: CachePolicy,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> SequenceState:
        """As `init_state`, with a cache of this policy, which `step` then follows."""
        ...


@runtime_checkable
class TakesQkSource(Protocol):
    """A causal mixer whose queries and keys may be of another sequence than its values.

    Its `forward` and `step` take that sequence, (B or 1, N, C), as a last argument `qk_source`; None for
    what it has by itself.
    """

    @property
    def qk_source(self) -> QkSource | None:
        """What a network is to give it; None where it needs nothing, as with a map that is fixed."""
        ...


@runtime_checkable
class FixesMap(Protocol):
    """A mixer whose attention is the same whatever it reads, so that it can be kept after training."""

    def fix_map(self, length: int, qk_source: Tensor | None = None) -> None:
        """Keep the attention of `length` positions until training begins or `release_map` is called."""
        ...

    def release_map(self) -> None:
        """Attend by queries and keys again."""
        ...
