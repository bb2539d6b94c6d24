"""Where a data set's files are looked for, and what is said when they are nowhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from qna._core.errors import InvalidInput


class MissingData(InvalidInput):
    """A data set is not on this machine.

    Args:
        name: of the data set.
        wanted: the files that were looked for, in words.
        places: folders that were looked in.
        commands: each gets the data.
    """

    def __init__(self, name: str, wanted: str, places: Iterable[Path], commands: Sequence[str]):
        looked = " or ".join(map(str, places))
        ways = " or ".join(f"`{command}`" for command in commands)
        super().__init__(f"data {name!r} was not found: looked for {wanted} in {looked}; get it with {ways}")


def home(name: str) -> Path:
    """The folder of a data set if none is named: data/NAME in the working folder."""
    return Path("data") / name
