"""Rows about images in files, by one process or several, in one go or gone on with."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from qna._core.errors import InvalidInput
from qna._core.files import is_stream, write_whole
from qna.cli._progress import counting
from qna.eval import Shares, find_images
from qna.train.processes import Processes

# characters of a line on standard input; no system has names as long
_LONGEST_NAME = 2**16
# what another task's networks are told and these make nothing of
OF_CLASSIFIERS = ("weights", "pretrained", "crop_pct", "mean", "std")


@dataclass(frozen=True)
class Question:
    """What is asked of images, and where the rows go.

    Attributes:
        kind: the dataclass of entries and answers.
        found: entries without answers, in their order.
        answer: fills them in.
        write: writes answers as rows to an open file.
        out: the file of rows; None for standard output.
        kept: the folder where shares of answers wait until all are there; None keeps nothing.
        size: images of a share.
        key: tells what the answers depend on beside the images.
        stands: whether an answer that was kept still holds.
        counted: what is counted while they are asked; None where `answer` shows how far it is.
    """

    kind: type[Any]
    found: Callable[[], Iterable[Any]]
    answer: Callable[[Iterable[Any]], Iterator[Any]]
    write: Callable[[TextIO, Iterable[Any]], None]
    out: Path | None = None
    kept: Path | None = None
    size: int = 1
    key: Callable[[], str] = field(default=lambda: "")
    stands: Callable[[Any], bool] = field(default=lambda answer: True)
    counted: str | None = "images"


def answer(question: Question, processes: Processes | None, files: list[str]) -> int:
    """Ask, write the rows, and return the command's status.

    Raises:
        InvalidInput: what is asked cannot be shared among processes, or something cannot be written.
    """
    if processes is not None:
        if question.kept is None:
            raise InvalidInput("several processes need --out FILE, a file that one of them writes for all")
        if "-" in files:
            raise InvalidInput("paths from stdin reach one process alone; name files or folders")
    try:
        return _at_once(question) if question.kept is None else _with_shares(question, processes)
    except BrokenPipeError:  # ends the command, and is nobody's fault
        raise
    except OSError as error:
        where = question.out or error.filename or "to standard output"
        raise InvalidInput(f"cannot write {where}: {error}") from None


def _at_once(question: Question) -> int:
    """Rows as they come."""
    with counting(question.counted) as count:
        answers = Counted(question.answer(question.found()), count)
        _write(question, answers)
    return answers.status()


def _with_shares(question: Question, processes: Processes | None) -> int:
    """Rows of shares that are kept until all are written."""
    assert question.kept is not None
    shares = Shares(
        question.kept, question.size, question.key(), question.answer, question.kind, question.stands
    )
    with counting(question.counted) as count:
        if processes is not None:
            for answered in shares.work(question.found(), rank=processes.rank, count=processes.count):
                count(answered)
            processes.wait()
            if processes.rank > 0:
                return 0
        # with others all has been counted by now
        answers = Counted(shares.all(question.found()), count if processes is None else None)
        _write(question, answers)
    shares.remove()
    status = answers.status()
    # torchrun would take another status for a process that failed, and start all anew
    return status if processes is None else 0


def _write(question: Question, answers: Counted) -> None:
    if question.out is None:
        question.write(sys.stdout, answers)
        sys.stdout.flush()
        return

    def fill(path: Path) -> None:
        with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            question.write(file, answers)

    write_whole(question.out, fill)


class Counted:
    """Passes answers on and counts them."""

    def __init__(self, answers: Iterable[Any], count: Callable[[int], None] | None):
        self.answers, self.count, self.rows, self.errors = answers, count, 0, 0

    def __iter__(self) -> Iterator[Any]:
        for one in self.answers:
            self.rows += 1
            self.errors += one.error is not None
            if self.count is not None:
                self.count(1)
            yield one

    def status(self) -> int:
        """The command's, after a word on images without an answer."""
        if self.errors:
            print(f"qna: {self.errors:,} of {self.rows:,} have no answer", file=sys.stderr)
        return 1 if self.errors else 0


def kept_beside(out: Path | None) -> Path | None:
    """Where shares wait for the file `out`; None where that is a pipe, or standard output."""
    if out is None or is_stream(out):
        return None
    real = Path(os.path.realpath(out))
    return real.with_name(f".{real.name}.shares")


def places(named: list[str]) -> Iterator[str]:
    """Files and folders, those on standard input in the place of -."""
    for name in named:
        if name == "-":
            lines = iter(lambda: sys.stdin.readline(_LONGEST_NAME), "")
            yield from filter(None, (line.rstrip("\r\n") for line in lines))
        else:
            yield name


def found_with_names(kind: type[Any], named: list[str], folders: dict[str, Path | None]) -> Iterator[Any]:
    """An entry for every image, with the name that what is made of it gets in `folders`, as PNG.

    Where an image lies in a folder that was named, its name in `folders` lies likewise.

    Args:
        kind: of the entries, with path, name and error.
        named: files and folders.
        folders: by option; nothing is made of an image where they are all None.

    Raises:
        InvalidInput: one of `folders` lies in a folder that is searched, where its files would be found.
    """
    wanted = {option: folder for option, folder in folders.items() if folder is not None}
    taken = set[str]()
    for place in places(named):
        if os.path.isdir(place):
            inside = os.path.realpath(place)
            for option, folder in wanted.items():
                if os.path.commonpath([inside, os.path.realpath(folder)]) == inside:
                    raise InvalidInput(
                        f"{option} {folder} lies in {place}, which is searched for images: name a folder "
                        "outside"
                    )
        for found in find_images([place]):
            name = (
                os.path.relpath(found.path, place) if os.path.isdir(place) else os.path.basename(found.path)
            )
            name, error = str(Path(name).with_suffix(".png")), found.error
            if error is None and wanted:
                made = [folder / name for folder in wanted.values()]
                if name in taken or any(os.path.realpath(m) == os.path.realpath(found.path) for m in made):
                    error = f"{made[0]} is another image's or the image itself"
                taken.add(name)
            yield kind(path=found.path, name=name, error=error)


def refuse(
    parser: argparse.ArgumentParser, options: argparse.Namespace, names: Iterable[str], what: str
) -> None:
    """Refuse options that mean nothing to the networks that are named.

    Raises:
        InvalidInput: for the first that differs from its default.
    """
    for name in names:
        if getattr(options, name) != parser.get_default(name):
            option = f"--{name.replace('_', '-')}"
            raise InvalidInput(f"{option} means nothing to a network that {what}: leave it out")
