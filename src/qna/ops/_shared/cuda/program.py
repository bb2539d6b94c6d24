"""A CUDA kernel as it is compiled and launched; neither needs a card to be described."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import NamedTuple

import torch


class Program(NamedTuple):
    """One kernel, with everything that is settled when it is compiled.

    Attributes:
        folder: where its sources are.
        kernel: its name, and that of the file it is in, ``<kernel>.cu``.
        macros: (name, value) of what the sources leave open.
    """

    folder: Path
    kernel: str
    macros: tuple[tuple[str, int], ...]

    @property
    def defines(self) -> list[str]:
        """The macros as compilers take them."""
        return [f"-D{name}={value}" for name, value in self.macros]


class CudaLaunch(NamedTuple):
    """One launch of a kernel whose only argument is a structure.

    Attributes:
        program: the kernel.
        blocks: how many blocks it runs, in one row.
        threads: of a block.
        shared: bytes of shared memory of a block.
        call: the argument.
        device: of the tensors whose addresses it holds.
    """

    program: Program
    blocks: int
    threads: int
    shared: int
    call: ctypes.Structure
    device: torch.device
