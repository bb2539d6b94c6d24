"""What a causal mixer remembers of a sequence: a value that is handed on, never kept or changed in place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from qna._core.errors import InvalidInput


@runtime_checkable
class Remembered(Protocol):
    """What a state may hold beside tensors: other states, caches."""

    @property
    def nbytes(self) -> int:
        """Bytes of what is remembered."""
        ...

    def select(self, rows: Tensor) -> Any:
        """The same of other sequences: row i of it is row ``rows[i]`` of this."""
        ...


@dataclass(frozen=True)
class SharedByAll:
    """What is the same for every sequence of a batch, and is there once: it stays whichever are selected.

    Attributes:
        held: tensors, or what is `Remembered`.
    """

    held: tuple[Any, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of it, once."""
        return sum(map(_bytes, self.held))

    def select(self, rows: Tensor) -> SharedByAll:
        """The same."""
        return self


@dataclass(frozen=True)
class SequenceState:
    """What a mixer knows of the first `length` positions of `batch` sequences.

    A value: a step gives a new one and leaves the old one as it was, so that whoever holds one may go on from
    it several times. Whoever made it alone knows what is in it.

    Attributes:
        maker: the mixer's configuration; another one refuses the state.
        batch: sequences.
        length: positions that were seen of each.
        held: tensors with the batch as first axis, other states, or what else is `Remembered`.
    """

    maker: str
    batch: int
    length: int = 0
    held: Mapping[str, Any] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of what is remembered; a growing cache may have set aside more, which does not count."""
        return sum(_bytes(value) for value in self.held.values())

    def __getitem__(self, name: str) -> Any:
        return self.held[name]

    def after(self, positions: int, **held: Any) -> SequenceState:
        """The state `positions` later, with what is named in the place of what was held."""
        return replace(self, length=self.length + positions, held={**self.held, **held})

    def select(self, rows: Tensor) -> SequenceState:
        """The state of other sequences: of beams that go on, or of one prompt for several answers.

        Args:
            rows: int64 (batch',), each below `batch`, in any order and as often as wanted.

        Raises:
            InvalidInput: `rows` is no list of sequences of this state.
        """
        if rows.ndim != 1 or rows.dtype != torch.int64:
            raise InvalidInput(f"rows must be int64 (batch,), got {rows.dtype} {tuple(rows.shape)}")
        if rows.numel() and not 0 <= int(rows.min()) <= int(rows.max()) < self.batch:
            raise InvalidInput(
                f"rows must be from 0 to {self.batch - 1}, of a state of {self.batch} sequences, got "
                f"{int(rows.min())} to {int(rows.max())}"
            )
        held = {name: _select(value, rows) for name, value in self.held.items()}
        return replace(self, batch=len(rows), held=held)

    def check(self, maker: str, batch: int) -> None:
        """Refuse to go on as another mixer or with other sequences.

        Raises:
            InvalidInput: with both values.
        """
        if maker != self.maker:
            raise InvalidInput(
                f"this state was made by {self.maker} and cannot be gone on with by {maker}; "
                "begin with its own init_state"
            )
        if batch != self.batch:
            raise InvalidInput(
                f"this state is of {self.batch} sequences, got {batch}; "
                "state.select(rows) gives that of others"
            )


def _bytes(value: Any) -> int:
    # numel, as a view of a larger tensor has the bytes of its own elements
    return value.numel() * value.element_size() if isinstance(value, Tensor) else value.nbytes


def _select(value: Any, rows: Tensor) -> Any:
    if isinstance(value, Tensor):
        return value.index_select(0, rows.to(value.device))
    return value.select(rows)
