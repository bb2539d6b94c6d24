"""`qna predict`."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from qna._core.errors import InvalidInput
from qna._core.files import write_whole
from qna.cli import _classifiers

if TYPE_CHECKING:
    from qna.eval import Prediction

# characters of a line on standard input; no system has names as long
_LONGEST_NAME = 2**16
_DESCRIPTION = """\
Say what is on images. Rows come in the order of the files; an image that cannot be read, or that the network
answers with NaN, gives a row with its error, and the command then ends with status 1. A network that segments
writes a mask for each image, a PNG of its size with the classes' colours, to the folder --out.
"""


def main(arguments: list[str]) -> int:
    """Predict and write the rows."""
    parser = argparse.ArgumentParser("qna predict", description=_DESCRIPTION)
    parser.add_argument("model", metavar="MODEL", help=_classifiers.SOURCES)
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="images, folders (searched with all inside), - for paths from stdin",
    )
    parser.add_argument("--format", choices=("csv", "json"), help="default: what --out ends in, else csv")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="default: standard output; for a network that segments the folder of the masks",
    )
    parser.add_argument(
        "--top-k", type=_classifiers.whole, default=5, metavar="K", help="classes per image (default 5)"
    )
    parser.add_argument("--batch-size", type=_classifiers.whole, default=32, metavar="N", help="default 32")
    _classifiers.add_options(parser)
    options = parser.parse_args(arguments)
    for name in ("top_k", "batch_size"):
        if getattr(options, name) < 1:
            raise InvalidInput(f"{name} must be at least 1, got {getattr(options, name)}")
    from qna.train.reload import task_of

    task = task_of(options.model)
    if task == "segmentation":
        from qna.cli._segmenters import predict_masks

        return predict_masks(parser, options, _places(options.files))
    if task != "classification":
        raise InvalidInput(f"{options.model} is a run of {task}, of which `qna predict` makes nothing")
    suffix = None if options.out is None else options.out.suffix.removeprefix(".").lower()
    form = options.format or (suffix if suffix in ("csv", "json") else "csv")

    device = _classifiers.device(options)
    (classifier,) = _classifiers.load(options, [options.model])
    from qna.eval import find_images, predict

    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):  # a file's name need not be text
            stream.reconfigure(errors="surrogateescape")
    found = find_images(_places(options.files))
    predictions = _Counted(
        predict(classifier, found, top_k=options.top_k, batch_size=options.batch_size, device=device)
    )
    write = _write_json if form == "json" else _write_csv
    columns = min(options.top_k, len(classifier.classes))
    try:
        if options.out is None:
            write(sys.stdout, predictions, columns)
        else:
            write_whole(options.out, lambda path: _write_file(path, write, predictions, columns))
    except BrokenPipeError:  # ends the command, and is nobody's fault
        raise
    except OSError as error:
        raise InvalidInput(f"cannot write {options.out or 'to standard output'}: {error}") from None
    if predictions.errors:
        print(f"qna: {predictions.errors:,} of {predictions.rows:,} have no answer", file=sys.stderr)
    return 1 if predictions.errors else 0


class _Counted:
    """Passes predictions on and counts them."""

    def __init__(self, predictions: Iterable[Prediction]):
        self.predictions, self.rows, self.errors = predictions, 0, 0

    def __iter__(self) -> Iterator[Prediction]:
        for prediction in self.predictions:
            self.rows += 1
            self.errors += prediction.error is not None
            yield prediction


def _places(named: list[str]) -> Iterator[str]:
    for name in named:
        if name == "-":
            lines = iter(lambda: sys.stdin.readline(_LONGEST_NAME), "")
            yield from filter(None, (line.rstrip("\r\n") for line in lines))
        else:
            yield name


def _write_file(path: Path, write: Callable[..., None], predictions: _Counted, columns: int) -> None:
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        write(file, predictions, columns)


def _write_csv(file: TextIO, predictions: _Counted, columns: int) -> None:
    """One row per image: path, label_1, probability_1, ..., error."""
    writer = csv.writer(file, lineterminator="\n")
    heads = [f"{what}_{rank}" for rank in range(1, columns + 1) for what in ("label", "probability")]
    writer.writerow(["path", *heads, "error"])
    for prediction in predictions:
        cells: list[str] = []
        for guess in prediction.guesses:
            cells += [guess.label, f"{guess.probability:.6f}"]
        cells += [""] * (2 * columns - len(cells))
        writer.writerow([prediction.path, *cells, prediction.error or ""])
    file.flush()


def _write_json(file: TextIO, predictions: _Counted, columns: int) -> None:
    """A list with one object per image, on a line of its own."""
    file.write("[")
    for number, prediction in enumerate(predictions):
        about = {
            "path": prediction.path,
            "classes": [vars(guess) for guess in prediction.guesses],
            "error": prediction.error,
        }
        file.write(",\n" if number else "\n")
        file.write(json.dumps(about, allow_nan=False))
    file.write("\n]\n")
    file.flush()
