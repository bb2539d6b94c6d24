"""Safetensors files, read with limits: what a header can ask for is known before anything is made of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from qna._core.errors import InvalidInput, require
from qna._core.files import write_whole

# text takes up to 25 times its size once it is parsed; names of 22,000 classes take 1 MiB
HEADER_BYTES = 2**23
TENSORS = 2**16


def read_metadata(path: Path) -> dict[str, str]:
    """What the header of a safetensors file says beside its tensors.

    Raises:
        OSError: if the file cannot be read.
        InvalidInput: if it is no safetensors file or is cut short; the sentence does not name it.
    """
    return _read(path, with_tensors=False)[1]


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors by name, as views into the file, and what the header says beside them; errors as above."""
    return _read(path, with_tensors=True)


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write contiguous tensors and what goes beside them, whole or not at all.

    Raises:
        OSError: if the disk is full or not writable; what was in `path` is still there.
    """
    safetensors = require("safetensors", extra="models", purpose="saving weights")
    torch_format = require("safetensors.torch", extra="models", purpose="saving weights")

    def write(temporary: Path) -> None:
        try:
            torch_format.save_file(dict(tensors), temporary, metadata=metadata)
        except safetensors.SafetensorError as error:
            raise OSError(f"cannot write {path}: {error}") from error

    write_whole(path, write)


def _read(path: Path, *, with_tensors: bool) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    safetensors = require("safetensors", extra="models", purpose="reading weights")
    check_header(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = list(file.keys())
            if len(names) > TENSORS:
                raise InvalidInput(f"it has {len(names):,} tensors, more than {TENSORS:,}")
            metadata = dict(file.metadata() or {})
            return {name: file.get_tensor(name) for name in names if with_tensors}, metadata
    # types that torch lacks, and sizes beyond 64 bits
    except (safetensors.SafetensorError, RuntimeError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(" ".join(str(error).split())) from None


def check_header(path: Path) -> None:
    """Check that the header lies in the file whole and is small; its length is in the first eight bytes.

    Raises:
        OSError: if the file cannot be read.
        InvalidInput: otherwise; the sentence does not name the file.
    """
    if path.exists() and not path.is_file():
        raise InvalidInput("it is not a file")
    with path.open("rb") as file:
        told, there = int.from_bytes(file.read(8), "little"), os.fstat(file.fileno()).st_size
    if there < 8 or told > there - 8:
        raise InvalidInput(f"its header should have {told:,} bytes, and the file has {there:,}")
    if told > HEADER_BYTES:
        raise InvalidInput(f"its header has {told:,} bytes, more than {HEADER_BYTES:,}")
