"""Text of files: which, split into what is trained on and what is held out, and windows of their tokens."""

from __future__ import annotations

import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qna._core.errors import InvalidInput
from qna._core.seeds import derive_seed
from qna.data.text.batch import TokenBatch, stacked
from qna.data.text.long_context import KINDS, Drawn, kind_of
from qna.data.text.tokens import Tokens, digest, joined

# the source of Python's standard library, which every machine has
STDLIB = "stdlib"
# folders of it that are tests, or are not it
_LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "lib2to3"}
# held-out sequences of a kind that is drawn: of every number of these that is trained on, one
_HELD_OUT_OF = 8


@dataclass(frozen=True)
class TokenWindows:
    """A stream of tokens cut into windows of one length; the target of each token is the one behind it.

    Attributes:
        tokens: of all texts.
        length: of a window.
    """

    tokens: np.ndarray
    length: int

    def __len__(self) -> int:
        return max(0, (len(self.tokens) - 1) // self.length)

    def batch(self, numbers: Sequence[int], seed: int) -> TokenBatch:
        """The windows of these numbers; by any seed but 0 all are cut at other places."""
        offset = derive_seed(seed, "offset") % self.length if seed else 0
        last = len(self.tokens) - self.length
        starts = [(offset + number * self.length) % last for number in numbers]
        cut = [self.tokens[start : start + self.length + 1] for start in starts]
        return stacked([(part[:-1], part[1:]) for part in cut])

    @property
    def digest(self) -> str:
        """Of the stream."""
        return digest(self.tokens)


@dataclass(frozen=True)
class Sequences:
    """Sequences of several lengths, those of each apart; of the examples their number."""

    parts: tuple[Any, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))


@dataclass(frozen=True)
class TokenData:
    """What the task `language` learns from.

    Attributes:
        name: that it is chosen by.
        train: sequences to train on, `TokenWindows` or `Drawn`.
        held_out: sequences to judge on, at one length or several.
        vocabulary: tokens that there are.
        tokens: how text is written; None for sequences that are drawn.
        tokens_per_byte: of the held-out text; None for sequences that are drawn.
        origin: in words.
    """

    name: str
    train: Any
    held_out: Sequences
    vocabulary: int
    tokens: Tokens | None
    tokens_per_byte: float | None
    origin: str


def is_drawn(name: str) -> bool:
    """Whether `name` is of sequences that are drawn, "recall:pairs=8" for example."""
    return name.partition(":")[0] in KINDS


def load_drawn(name: str, *, context: int, lengths: Sequence[int], count: int, seed: int) -> TokenData:
    """Sequences of a kind.

    Args:
        name: "recall", or with options, "recall:pairs=8,keys=32".
        context: tokens of a sequence that is trained on.
        lengths: of those that are judged.
        count: sequences of an epoch.
        seed: of the held-out sequences; others are trained on in every epoch.
    """
    kind = kind_of(name)
    held_out = max(1, count // _HELD_OUT_OF)
    return TokenData(
        name=name,
        train=Drawn(kind, context, count),
        held_out=Sequences(tuple(Drawn(kind, length, held_out, f"held out {seed}") for length in lengths)),
        vocabulary=kind.vocabulary,
        tokens=None,
        tokens_per_byte=None,
        origin="drawn anew for every epoch",
    )


def load_text(
    name: str,
    tokens: Tokens,
    *,
    context: int,
    lengths: Sequence[int],
    suffixes: Sequence[str],
    share: float,
    limit: int,
    seed: int,
) -> TokenData:
    """Text of files.

    Args:
        name: `STDLIB`, a file, or a folder.
        tokens: how it is written.
        context: tokens of a window that is trained on.
        lengths: of those that are judged.
        suffixes: of the files of a folder that are read.
        share: of all bytes, that is held out: whole files, at least one.
        limit: bytes to train on, and in proportion to judge on; 0 for all.
        seed: by which files are held out.

    Raises:
        InvalidInput: there is no such place, too little text in it, or one file alone.
    """
    files, origin = _files(name, tuple(suffixes))
    train, held_out = split(files, share=share, seed=seed)
    most = (limit, max(1, round(limit * share))) if limit else (None, None)
    read = [_read(part, size) for part, size in zip((train, held_out), most, strict=True)]
    streams = [joined(texts, tokens) for texts in read]
    for stream, what, length in zip(streams, ("train on", "judge on"), (context, max(lengths)), strict=True):
        if len(stream) <= length:
            raise InvalidInput(
                f"data {name!r} has {len(stream):,} tokens to {what}, which make no window of {length}; give "
                "more text, or a smaller context"
            )
    learned, size = (sum(map(len, texts)) for texts in read)
    return TokenData(
        name=name,
        train=TokenWindows(streams[0], context),
        held_out=Sequences(tuple(TokenWindows(streams[1], length) for length in lengths)),
        vocabulary=tokens.vocabulary,
        tokens=tokens,
        tokens_per_byte=(len(streams[1]) - 1) / size,
        origin=f"{origin}: {learned:,} bytes in {len(read[0]):,} files to train on, {size:,} in "
        f"{len(read[1]):,} held out",
    )


def split(files: Sequence[tuple[str, Any, int]], *, share: float, seed: int) -> tuple[list, list]:
    """Files to train on and files that are held out, each in an order that names and `seed` decide.

    Args:
        files: name, path and size of each.
        share: of all bytes, that is held out.
        seed: another one holds out others.

    Raises:
        InvalidInput: there are fewer than two.
    """
    if len(files) < 2:
        raise InvalidInput(
            f"files are held out whole, so there must be two of them with text, got {len(files)}; split a "
            "single one first"
        )
    order = sorted(files, key=lambda file: derive_seed(seed, "held out", file[0]))
    wanted = share * sum(size for *_, size in files)
    held_out = _first(order[:-1], max(1, round(wanted)))
    return order[len(held_out) :], held_out


def _read(files: Sequence[tuple[str, Path, int]], limit: int | None) -> list[bytes]:
    """The texts of the files, up to `limit` bytes together."""
    texts, left = [], limit
    for _, path, _ in files if limit is None else _first(files, limit):
        texts.append(path.read_bytes()[:left])
        left = None if left is None else left - len(texts[-1])
    return texts


def _first(files: Sequence[tuple[str, Any, int]], size: int) -> list:
    """The first files until they have `size` bytes together."""
    taken, total = [], 0
    for file in files:
        if total >= size:
            break
        taken.append(file)
        total += file[2]
    return taken


def _files(name: str, suffixes: tuple[str, ...]) -> tuple[list[tuple[str, Path, int]], str]:
    """Name, path and size of every file that is not empty, in the order of names; and where they are from."""
    place = Path(sysconfig.get_paths()["stdlib"]) if name == STDLIB else Path(name)
    if name == STDLIB:
        origin, suffixes = "the source of Python's standard library", (".py",)
    else:
        origin = f"text in {place.name}"
    if place.is_file():
        paths = [place]
    elif place.is_dir():
        paths = [
            path
            for path in place.rglob("*")
            if path.suffix in suffixes and path.is_file() and not _left_out(path.relative_to(place), name)
        ]
    else:
        raise InvalidInput(
            f"data {name!r} is neither a file or folder of text, nor {STDLIB!r}, nor one of "
            f"{', '.join(KINDS)} with options"
        )
    root = place.parent if place.is_file() else place
    named = sorted((path.relative_to(root).as_posix(), path) for path in paths)
    files = [(text, path, size) for text, path in named if (size := path.stat().st_size)]
    if not files:
        raise InvalidInput(f"data {name!r} has no text in files that end in {' or '.join(suffixes)}")
    return files, origin


def _left_out(path: Path, name: str) -> bool:
    return name == STDLIB and not _LEFT_OUT.isdisjoint(path.parts[:-1])
