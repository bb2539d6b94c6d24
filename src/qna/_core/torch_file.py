"""Files of torch.save, read with limits: nothing in them runs, and none asks for much more than it is."""

from __future__ import annotations

import argparse
import io
import mmap
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from qna._core.errors import InvalidInput
from qna._core.files import TEXT_BYTES

# of all that torch allows in a file, it alone is filled when it is made, with as many bytes as it is told
_FILLED = b"bytearray"


def read_torch(path: Path) -> Any:
    """What a file of torch.save holds: tensors, plain values, argparse.Namespace; nothing else is unpickled.

    Raises:
        OSError: if it cannot be read.
        InvalidInput: if it asks for more than it is; the sentence does not name it.
        Exception: of any kind, which torch makes of a damaged file.
    """
    if path.exists() and not path.is_file():
        raise InvalidInput("it is not a file")
    if not path.stat().st_size:
        raise InvalidInput("it is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(_FILLED) >= 0:
            raise InvalidInput(f"it asks for a {_FILLED.decode()}, which no weights need")
    if zipfile.is_zipfile(path):
        _check_parts(path)
        file: Any = path
    else:
        # a text says how long it is, and Python makes as much room before it reads one from a file
        file = io.BytesIO(path.read_bytes())
    # what timm's train.py was called with lies beside its weights
    with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of odd pickles, which it then refuses
        return torch.load(file, map_location="cpu", weights_only=True)


def _check_parts(path: Path) -> None:
    """Check that an archive's parts are stored as they are, as torch does, and that the pickles are small.

    Torch does not compare the parts with the checksums beside them: a damaged weight would be taken for one.
    """
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
    told = sum(part.file_size for part in parts)
    if told > size or any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise InvalidInput(f"its parts should have {told:,} bytes, and the file has {size:,}")
    for part in parts:
        if part.filename.endswith(".pkl") and part.file_size > TEXT_BYTES:
            raise InvalidInput(f"its {part.filename} has more than {TEXT_BYTES:,} bytes")
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise InvalidInput(
            f"its {damaged} is not what its checksum says; a file that was saved without checksums "
            "(torch.serialization.set_crc32_options) must be saved again with them"
        )
