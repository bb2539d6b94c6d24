"""Predictions of very many images, kept in shares as they are made: what was done once is not done again."""

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

import torch

from qna._core.errors import InvalidInput
from qna._core.files import read_bytes, write_text
from qna._core.typed_json import from_json_value, parse_json
from qna.eval.classifier import Classifier
from qna.eval.predictions import Prediction

# bytes of a share's file; thousands of guesses for each of thousands of images take as many
_LARGEST = 2**30


@dataclass(frozen=True)
class Shares:
    """A list of images, cut into shares of one size, and a folder with the answers to some of them.

    A share's file is named after all that its answers follow from: paths, sizes and times of its images, and
    `key`. So whoever asks for the same images gets what is kept, however many processes made it, and an image
    that has changed since is asked again.

    Attributes:
        folder: of the files; made when the first is written.
        size: images of a share.
        key: what the answers depend on beside the images.
        answer: gives predictions for entries without guesses, in their order.
    """

    folder: Path
    size: int
    key: str
    answer: Callable[[Iterable[Prediction]], Iterable[Prediction]]

    def work(self, found: Iterable[Prediction], *, rank: int, count: int) -> Iterator[int]:
        """See to every share whose turn is `rank` of `count`, and tell how many images each has.

        Raises:
            OSError: a file cannot be written.
        """
        for number, share in enumerate(self._shares(found)):
            if number % count == rank:
                yield len(self._answered(share))

    def all(self, found: Iterable[Prediction]) -> Iterator[Prediction]:
        """Every answer, in the order of `found`; those that are not kept are made, and kept.

        Raises:
            OSError: a file cannot be written.
        """
        for share in self._shares(found):
            yield from self._answered(share)

    def remove(self) -> None:
        """Forget all answers."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _shares(self, found: Iterable[Prediction]) -> Iterator[list[Prediction]]:
        entries = iter(found)
        while share := list(islice(entries, self.size)):
            yield share

    def _answered(self, share: Sequence[Prediction]) -> list[Prediction]:
        path = self.folder / f"{self._name(share)}.json"
        kept = _read(path, share)
        if kept is not None:
            return kept
        answers = list(self.answer(share))
        self.folder.mkdir(exist_ok=True)
        try:
            write_text(path, json.dumps([asdict(answer) for answer in answers]))
        except OSError:
            with suppress(OSError):  # it holds what was kept before
                self.folder.rmdir()
            raise
        return answers

    def _name(self, share: Sequence[Prediction]) -> str:
        facts = [self.key, *((entry.path, entry.error, _state(entry.path)) for entry in share)]
        return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


def key_of(classifier: Classifier, *, top_k: int) -> str:
    """What the guesses of a classifier depend on beside the images: weights, view, classes, how many."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in classifier.network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    digest.update(repr((classifier.view, classifier.classes, top_k)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _state(path: str) -> tuple[int, int] | None:
    """Size and time of a file; None where it cannot be had."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns


def _read(path: Path, share: Sequence[Prediction]) -> list[Prediction] | None:
    """The predictions in the file of a share; None where there is none, or none that is whole."""
    try:
        rows = from_json_value(list[Prediction], parse_json(read_bytes(path, _LARGEST), "it"), "it")
    except (OSError, InvalidInput):
        return None
    return rows if [row.path for row in rows] == [entry.path for entry in share] else None
