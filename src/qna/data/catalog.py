"""The data sets that can be named, one row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qna._core.errors import check_choice
from qna.data.digits import load_digits
from qna.data.images import ImageData


@dataclass(frozen=True)
class DataSpec:
    """A data set that can be named.

    Attributes:
        summary: what it is, in a few words.
        load: takes the folder that the user named, or None.
    """

    summary: str
    load: Callable[[Path | None], ImageData]


DATA: dict[str, DataSpec] = {
    "digits": DataSpec("1,797 handwritten digits, 8x8 grey, embedded in scikit-learn", load_digits),
}


def load_data(name: str, folder: Path | None = None) -> ImageData:
    """Return the data set called `name`.

    Args:
        name: a key of `DATA`.
        folder: where its files are, for data sets that have files.

    Raises:
        UnknownName: with the nearest names.
    """
    return DATA[check_choice("data", name, DATA)].load(folder)
