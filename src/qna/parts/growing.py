"""A tensor that grows at its end without being copied each time, and is still a value."""

from __future__ import annotations

import torch
from torch import Tensor

from qna.parts.attend import transformed

# positions that are set aside at least, and the share of what there is
_LEAST, _SPARE = 64, 4


class Growing:
    """Positions on axis -2 of a tensor (B, ..., n, d), a view of storage that has room behind them.

    What is appended is written into that room, once: whoever appends to an older value again, as beams do,
    gets storage of its own. So no value ever changes. Where gradients are kept, or a compiler or a transform
    is at work, tensors are concatenated. An append costs its own positions, and every so often a copy of all
    that is there; up to a quarter more is set aside.
    """

    __slots__ = ("_filled", "_start", "_stop", "_storage")

    def __init__(self, tensor: Tensor):
        """Hold the positions of `tensor`, without room behind them."""
        self._storage = tensor
        self._start, self._stop = 0, tensor.shape[-2]
        # how far the storage is written, for all values that share it
        self._filled = [self._stop]

    @property
    def tensor(self) -> Tensor:
        """(B, ..., n, d), to be read only."""
        if self._start == 0 and self._stop == self._storage.shape[-2]:
            return self._storage
        return self._storage.narrow(-2, self._start, self._stop - self._start)

    @property
    def nbytes(self) -> int:
        """Bytes of the positions, without the room."""
        return self.tensor.numel() * self._storage.element_size()

    def __len__(self) -> int:
        return self._stop - self._start

    def append(self, x: Tensor) -> Growing:
        """With `x`, (B, ..., t, d), behind what is there."""
        count = x.shape[-2]
        if torch.compiler.is_compiling() or torch.is_grad_enabled() or transformed() or x.is_meta:
            # what was saved for a backward pass must not be written to
            return Growing(torch.cat([self.tensor, x], -2))
        fits = self._stop + count <= self._storage.shape[-2] and self._filled[0] == self._stop
        # a tensor made in inference mode cannot be written to outside it
        if fits and (torch.is_inference_mode_enabled() or not self._storage.is_inference()):
            storage, start, filled = self._storage, self._start, self._filled
        else:
            total = len(self) + count
            room = total + max(_LEAST, total // _SPARE)
            storage = x.new_empty(*x.shape[:-2], room, x.shape[-1])
            storage.narrow(-2, 0, len(self)).copy_(self.tensor)
            start, filled = 0, [len(self)]
        stop = start + len(self)
        storage.narrow(-2, stop, count).copy_(x)
        filled[0] = stop + count
        return self._view(storage, start, stop + count, filled)

    def last(self, count: int) -> Growing:
        """The last `count` positions, or all where there are fewer; what is before them is given up."""
        if count >= len(self):
            return self
        if torch.compiler.is_compiling() or torch.is_grad_enabled():
            return Growing(self.tensor.narrow(-2, len(self) - count, count))
        if self._storage.shape[-2] > 2 * (count + _LEAST):
            # a view would keep all that was given up
            return Growing(self.tensor.narrow(-2, len(self) - count, count).contiguous())
        return self._view(self._storage, self._stop - count, self._stop, self._filled)

    def select(self, rows: Tensor) -> Growing:
        """The rows of the batch that are named, in storage of their own."""
        return Growing(self.tensor.index_select(0, rows.to(self._storage.device)))

    @staticmethod
    def _view(storage: Tensor, start: int, stop: int, filled: list[int]) -> Growing:
        made = Growing.__new__(Growing)
        made._storage, made._start, made._stop, made._filled = storage, start, stop, filled
        return made
