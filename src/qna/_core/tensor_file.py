"""Safetensors files, read with limits: what a header can ask for is known before anything is made of it.

What is written here carries a digest of all its bytes in the header, which is checked when the tensors are
read here. Other readers pass over it; files without one, of others or older, are taken as they are.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch

from qna._core.errors import InvalidInput, require
from qna._core.files import TEXT_BYTES, sha256_of, write_whole

TENSORS = 2**16
# the digest's name in a header, where it stands in it, and what stands there while it is taken
_DIGEST = "sha256"
_PLACE = re.compile(rb'"sha256":"([0-9a-f]{64})"')
_BLANK = "0" * 64


def read_metadata(path: Path) -> dict[str, str]:
    """What the header of a safetensors file says beside its tensors.

    Raises:
        OSError: if the file cannot be read.
        InvalidInput: if it is no safetensors file or is cut short; the sentence does not name it.
    """
    return _read(path, with_tensors=False)[1]


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors by name, as views into the file, and what the header says beside them.

    Raises:
        OSError: if the file cannot be read.
        InvalidInput: as above, or if a byte is not as it was written; the sentence does not name the file.
    """
    return _read(path, with_tensors=True)


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write tensors and what goes beside them, with a digest; whole or not at all.

    What lies in another order in memory, as weights of networks in channels-last do, is written in its own.

    Raises:
        OSError: if the disk is full or not writable; what was in `path` is still there.
    """
    safetensors = require("safetensors", extra="models", purpose="saving weights")
    torch_format = require("safetensors.torch", extra="models", purpose="saving weights")

    def write(temporary: Path) -> None:
        ordered = {name: tensor.contiguous() for name, tensor in tensors.items()}
        try:
            torch_format.save_file(ordered, temporary, metadata={**metadata, _DIGEST: _BLANK})
        except safetensors.SafetensorError as error:
            # its text ends with the system's number of what happened
            number = re.search(r"\(os error (\d+)\)", str(error))
            if number is None:
                raise OSError(errno.EIO, str(error), str(path)) from error
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
        _sign(temporary)

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
            told = metadata.pop(_DIGEST, None)
            if with_tensors and told is not None and told != _digest(path)[0]:
                raise InvalidInput("it is damaged: its bytes are not those that were written")
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
    if told > TEXT_BYTES:
        raise InvalidInput(f"its header has {told:,} bytes, more than {TEXT_BYTES:,}")


def _sign(path: Path) -> None:
    """Put the digest in its place in the header, which keeps its length."""
    digest, start = _digest(path)
    with path.open("r+b") as file:
        file.seek(start)
        file.write(digest.encode())


def _digest(path: Path) -> tuple[str, int]:
    """SHA-256 of a whole file, with zeros where its header has the digest, and where that begins."""
    with path.open("rb") as file:
        head = file.read(8)
        head += file.read(int.from_bytes(head, "little"))
        place = _PLACE.search(head)
        if place is None:
            raise InvalidInput("it is damaged: its header does not hold the digest as it was written")
        start, end = place.span(1)
        return sha256_of(file, head[:start] + _BLANK.encode() + head[end:]), start
