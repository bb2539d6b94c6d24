"""Answers on very many images, kept in shares as they are made: what was done once is not done again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import nn

from qna._core.errors import InvalidInput
from qna._core.files import read_bytes, write_text
from qna._core.typed_json import from_json_value, parse_json

# bytes of a share's file; thousands of guesses for each of thousands of images take as many
_LARGEST = 2**30


class AskedImage(Protocol):
    """An image that is asked about, with or without its answer: a dataclass of what JSON can hold."""

    @property
    def path(self) -> str:
        """Of its file."""
        ...

    @property
    def error(self) -> str | None:
        """Why there is no answer."""
        ...


Answer = TypeVar("Answer", bound=AskedImage)


@dataclass(frozen=True)
class Shares(Generic[Answer]):
    """A list of images, cut into shares of one size, and a folder with the answers to some of them.

    A share's file is named after all that its answers follow from: paths, sizes and times of its images, and
    `key`. So whoever asks for the same images gets what is kept, however many processes made it, and an image
    that has changed since is asked again.

    Attributes:
        folder: of the files; made when the first is written.
        size: images of a share.
        key: what the answers depend on beside the images.
        answer: fills in entries without answers, in their order.
        kind: the dataclass that entries and answers are.
        stands: whether an answer that is kept still holds: what else it left may have gone.
    """

    folder: Path
    size: int
    key: str
    answer: Callable[[Iterable[Answer]], Iterable[Answer]]
    kind: type[Answer]
    stands: Callable[[Answer], bool] = lambda answer: True

    def work(self, found: Iterable[Answer], *, rank: int, count: int) -> Iterator[int]:
        """See to every share whose turn is `rank` of `count`, and tell how many images each has.

        Raises:
            OSError: a file cannot be written.
        """
        for number, share in enumerate(self._shares(found)):
            if number % count == rank:
                yield len(self._answered(share))

    def all(self, found: Iterable[Answer]) -> Iterator[Answer]:
        """Every answer, in the order of `found`; those that are not kept are made, and kept.

        Raises:
            OSError: a file cannot be written.
        """
        for share in self._shares(found):
            yield from self._answered(share)

    def remove(self) -> None:
        """Forget all answers."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _shares(self, found: Iterable[Answer]) -> Iterator[list[Answer]]:
        entries = iter(found)
        while share := list(islice(entries, self.size)):
            yield share

    def _answered(self, share: Sequence[Answer]) -> list[Answer]:
        path = self.folder / f"{self._name(share)}.json"
        kept = self._read(path, share)
        if kept is not None and all(map(self.stands, kept)):
            return kept
        answers = list(self.answer(share))
        self.folder.mkdir(exist_ok=True)
        try:
            write_text(path, json.dumps([asdict(answer) for answer in answers]))  # type: ignore[call-overload]
        except OSError:
            with suppress(OSError):  # it holds what was kept before
                self.folder.rmdir()
            raise
        return answers

    def _read(self, path: Path, share: Sequence[Answer]) -> list[Answer] | None:
        """The answers in the file of a share; None where there is none, or none that is whole."""
        try:
            rows = from_json_value(list[self.kind], parse_json(read_bytes(path, _LARGEST), "it"), "it")  # type: ignore[name-defined]
        except (OSError, InvalidInput):
            return None
        return rows if [row.path for row in rows] == [entry.path for entry in share] else None

    def _name(self, share: Sequence[Answer]) -> str:
        facts = [self.key, *((entry.path, entry.error, _state(entry.path)) for entry in share)]
        return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


def key_of(network: nn.Module, *facts: Any) -> str:
    """What answers depend on beside the images: a network's weights, and facts that tell themselves."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    digest.update(repr(facts).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _state(path: str) -> tuple[int, int] | None:
    """Size and time of a file; None where it cannot be had."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns
