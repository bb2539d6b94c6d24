"""Files that are either as they were or complete, whatever happens while they are written."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from qna._core.errors import InvalidInput

# of text that is parsed, which takes up to 25 times its size then; names of 22,000 classes take 1 MiB
TEXT_BYTES = 2**23


def read_bytes(path: Path, most: int = TEXT_BYTES) -> bytes:
    """What a file holds, or a pipe gives until it ends.

    Raises:
        OSError: if it cannot be read.
        InvalidInput: if that is more than `most` bytes, of which no more is read; the sentence does not name
            the file.
    """
    pieces, left = list[bytes](), most + 1
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > most:
            left = 0
        # in pieces: asked for many bytes at once, Python makes room for all of them first
        while left and (piece := file.read(min(left, 2**20))):
            pieces.append(piece)
            left -= len(piece)
    if not left:
        raise InvalidInput(f"it has more than {most:,} bytes")
    return b"".join(pieces)


def sha256_of(file: BinaryIO, before: bytes = b"") -> str:
    """SHA-256, in hexadecimal, of `before` and of what is left of an open file."""
    digest = hashlib.sha256(before)
    while piece := file.read(2**20):
        digest.update(piece)
    return digest.hexdigest()


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, bring it to the disk, then put it in `path`'s place.

    A link stays one: what it names is written. A pipe or a device such as /dev/stdout is never replaced but
    written through, when all is known.

    Raises:
        OSError: from writing, a full disk for example, or because `path` is a folder, a disk or a socket;
            `path` is then as it was, with nothing beside it.
    """
    if is_stream(path):
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder) / path.name
            write(temporary)
            with open(temporary, "rb") as source, open(path, "wb") as target:
                shutil.copyfileobj(source, target)
        return
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        write(temporary)
        temporary.chmod(mode)  # some writers make files that only their owner can read
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def is_stream(path: Path) -> bool:
    """Whether `path` must be written through: a pipe, a character device, or a file that is open already.

    Raises:
        OSError: if it cannot be written as a file at all.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        raise OSError(errno.EINVAL, "a disk or a socket is no place for a file", str(path))
    return not stat.S_ISREG(mode) or _through_descriptor(path)


def _through_descriptor(path: Path) -> bool:
    """Whether a chain of links leads through /dev or /proc, as /dev/stdout does to where output goes."""
    for _ in range(40):  # as many as Linux follows
        path = Path(os.path.abspath(path))
        if path.parts[1:2] in (("dev",), ("proc",)) and path.parts[2:3] != ("shm",):
            return True
        if not path.is_symlink():
            return False
        path = path.parent / os.readlink(path)
    return False


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary folder beside `folder`, bring it to the disk, then give it its name.

    Args:
        folder: must not exist, or be empty.
        write: gets the temporary folder; it writes files into it, not folders.

    Raises:
        OSError: from writing; nothing is left then.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        mode = temporary.stat().st_mode & 0o666
        write(temporary)
        for path in temporary.iterdir():
            path.chmod(mode)  # some writers make files that only their owner can read
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
        sync_folder(temporary)
        if folder.exists():
            folder.rmdir()
        os.replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(folder.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed processes left in `folder`."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Bring the names in `folder` to the disk; only POSIX lets a folder be opened for that."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
