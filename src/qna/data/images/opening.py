"""Reading the images of a batch, whatever belongs to each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from qna._core.errors import InvalidInput
from qna.data.images.decoding import UnreadableImage


class Openable(Protocol):
    """Examples that are read one by one."""

    def __len__(self) -> int: ...

    def open(self, index: int) -> Any:
        """One example.

        Raises:
            UnreadableImage: with its name and the cause.
        """
        ...


def open_each(
    examples: Openable, indices: Sequence[int], *, replace: bool, skipped: list[str]
) -> Iterator[tuple[int, Any]]:
    """Read the examples of a batch one by one, for a photograph takes more memory than what becomes of it.

    Args:
        examples: all of them.
        indices: of those to read.
        replace: take the next one in place of one that cannot be read, so that the batch stays full.
        skipped: a line on each that cannot be read is added to it.

    Yields:
        index and content of each that was read.

    Raises:
        InvalidInput: if none can be read and one has to be.
    """
    for wanted in indices:
        for place in range(wanted, wanted + (len(examples) if replace else 1)):
            index = place % len(examples)
            try:
                example = examples.open(index)
            except UnreadableImage as error:
                skipped.append(str(error))
                continue
            yield index, example
            break
        else:
            if replace:
                raise InvalidInput(f"none of the {len(examples)} images can be read; {skipped[0]}")
