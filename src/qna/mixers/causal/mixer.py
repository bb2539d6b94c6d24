"""What every causal mixer has: a state that is checked, and a sequence that may be given in parts."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from qna._core import checks
from qna.parts.sequence_state import SequenceState


class CausalMixer(nn.Module):
    """A module (B, N, dim) -> (B, N, dim) that looks back alone, and can go on from a state.

    A mechanism defines `begin`, what its state holds, and `advance`, how it goes on; `forward` is a step from
    the beginning unless it has a better way. Its ``extra_repr`` tells every argument, those of mixers inside
    it too: by its class and that text states are known.
    """

    dim: int
    out_dim: int

    @abstractmethod
    def begin(self, batch: int, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
        """What is held before the first position: tensors with the batch as first axis, or `Remembered`."""

    @abstractmethod
    def advance(self, x: Tensor, state: SequenceState) -> tuple[Tensor, SequenceState]:
        """What `step` gives, of input and state that are checked; with ``state.after(x.shape[1], ...)``."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, dim) -> (B, N, dim)."""
        self.check(x)
        return self.advance(x, self.init_state(x.shape[0], device=x.device, dtype=x.dtype))[0]

    def init_state(
        self, batch: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> SequenceState:
        """What is known before the first position of `batch` sequences.

        Args:
            batch: sequences.
            device: where it lies; None for where the parameters do.
            dtype: of what is kept, as far as the mixer does not need a wider one; None for the parameters'.
        """
        device, dtype = self._place(device, dtype)
        return SequenceState(self.configuration, self._batch(batch), 0, self.begin(batch, device, dtype))

    def step(self, x: Tensor, state: SequenceState) -> tuple[Tensor, SequenceState]:
        """Go on with the next N positions, one or many: (B, N, dim) -> (B, N, dim), and the state then.

        Raises:
            InvalidInput: the input is no such map, or the state was made by a mixer of another configuration,
                or is of another number of sequences.
        """
        self.check(x)
        state.check(self.configuration, x.shape[0])
        return self.advance(x, state)

    @property
    def configuration(self) -> str:
        """By which its states are known."""
        return f"{type(self).__name__}({self.extra_repr()})"

    def check(self, x: Tensor) -> None:
        """The input must be (B, N, dim)."""
        checks.channels_last_map(type(self).__name__, x, self.dim, 1)

    def _batch(self, batch: int) -> int:
        # a number that a recorder gives is not asked
        if type(batch) in (int, bool):
            checks.natural(type(self).__name__, batch=batch)
        return batch

    def _place(
        self, device: torch.device | None, dtype: torch.dtype | None
    ) -> tuple[torch.device, torch.dtype]:
        first = next(self.parameters(), torch.empty(0))
        return torch.device(device or first.device), dtype or first.dtype
