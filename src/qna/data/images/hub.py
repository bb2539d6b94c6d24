"""Image data sets of the Hugging Face hub, or in its formats on disk, through timm's reader."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qna._core.errors import InvalidInput
from qna.data.images.folder import HELD_OUT_NAMES, photo_data
from qna.data.images.labelled import FileImages, ImageData
from qna.data.images.vision import timm_readers

PREFIX = "hfds/"


@dataclass(frozen=True)
class HubReader:
    """Reads images through one of timm's readers.

    Attributes:
        reader: gives (file, label) at an index.
    """

    reader: Any

    def __call__(self, index: int) -> bytes:
        """The bytes of an image."""
        try:
            with self.reader[index][0] as file:
                return file.read()
        except (AssertionError, KeyError, TypeError) as error:  # a row without an image
            raise OSError(f"no image in row {index}: {error!r}") from None


def load_hub(name: str, folder: Path | None = None) -> ImageData:
    """Return the data set ``hfds/NAME``: its split "train" and the first of validation, valid, val and test.

    Args:
        name: with the prefix; NAME is a repository of the hub or a folder that the package datasets reads.
        folder: where downloads are kept; None for the package's usual place.

    Raises:
        InvalidInput: if the package is missing, or the data set, a split or a column "image" or "label" is.
    """
    train, held_out = _reader(name, folder, ("train",)), _reader(name, folder, HELD_OUT_NAMES)
    if train.class_to_idx != held_out.class_to_idx:
        raise InvalidInput(f"{name}: the splits have different classes")
    classes = sorted(train.class_to_idx, key=train.class_to_idx.__getitem__)
    parts = [
        FileImages([f"{name} {split} row {i}" for i in range(len(r))], list(r.iter_targets()), HubReader(r))
        for split, r in (("train", train), ("held out", held_out))
    ]
    return photo_data(
        name, tuple(map(str, classes)), parts[0], parts[1], f"{name}, through the package datasets"
    )


def _reader(name: str, folder: Path | None, splits: tuple[str, ...]) -> Any:
    readers, said = timm_readers(), io.StringIO()
    root = None if folder is None else str(folder)
    causes = []
    for split in splits:
        try:
            # timm prints a line if the package is missing
            with contextlib.redirect_stdout(said):
                reader = readers.create_reader(name, root=root, split=split)
        except ModuleNotFoundError as error:
            raise InvalidInput(
                f"data {name!r} needs the package {error.name!r}: pip install datasets"
            ) from None
        except (OSError, ValueError, KeyError) as error:
            causes.append(f"{split}: {error}")
            continue
        if not reader.class_to_idx:
            raise InvalidInput(f"{name}: the column 'label' does not name its classes")
        return reader
    raise InvalidInput(f"data {name!r} has no readable split {' or '.join(splits)} ({'; '.join(causes)})")
