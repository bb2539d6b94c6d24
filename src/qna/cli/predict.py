"""`qna predict`."""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from qna._core.errors import InvalidInput
from qna._core.files import is_stream, write_whole
from qna.cli import _classifiers
from qna.cli._progress import counting

if TYPE_CHECKING:
    import torch

    from qna.eval import Classifier, Prediction
    from qna.train.processes import Processes

# characters of a line on standard input; no system has names as long
_LONGEST_NAME = 2**16
_DESCRIPTION = """\
Say what is on images. Rows come in the order of the files; an image that cannot be read, or that the network
answers with NaN, gives a row with its error, and the command then ends with status 1. A network that segments
writes a mask for each image, a PNG of its size with the classes' colours, to the folder --out.

With --out, what is done is kept in a folder beside the file until all is: the same command goes on where one
was stopped or killed. Started by torchrun, on machines with a common disk, its processes take turns with
shares of the images, and the first writes the file.
"""
# batches of a share
_SHARE = 8


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
    from qna.train.processes import join_processes

    processes = join_processes(cpu=options.device == "cpu")
    device = _classifiers.device(options)  # sets the threads, too
    if processes is not None:
        device = processes.device
    (classifier,) = _classifiers.load(options, [options.model])
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):  # a file's name need not be text
            stream.reconfigure(errors="surrogateescape")
    work = _Work(classifier, options, device, processes)
    try:
        keeps = options.out is not None and not is_stream(options.out)
        if processes is not None:
            _check_parallel(options.files, keeps=keeps)
        return work.with_shares() if keeps else work.at_once()
    except BrokenPipeError:  # ends the command, and is nobody's fault
        raise
    except OSError as error:
        raise InvalidInput(f"cannot write {options.out or 'to standard output'}: {error}") from None


def _check_parallel(files: list[str], *, keeps: bool) -> None:
    """What several processes need."""
    if not keeps:
        raise InvalidInput("several processes need --out FILE, a file that one of them writes for all")
    if "-" in files:
        raise InvalidInput("paths from stdin reach one process alone; name files or folders")


class _Work:
    """What is asked, of which network, and by whom."""

    def __init__(
        self,
        classifier: Classifier,
        options: argparse.Namespace,
        device: torch.device,
        processes: Processes | None,
    ):
        self.classifier, self.options, self.device, self.processes = classifier, options, device, processes
        self.columns = min(options.top_k, len(classifier.classes))
        suffix = None if options.out is None else options.out.suffix.removeprefix(".").lower()
        form = options.format or (suffix if suffix in ("csv", "json") else "csv")
        self.write = _write_json if form == "json" else _write_csv

    def at_once(self) -> int:
        """Rows as they come, to standard output or a pipe."""
        with counting("images") as count:
            predictions = _Counted(self._answer(self._found()), count)
            if self.options.out is None:
                self.write(sys.stdout, predictions, self.columns)
            else:
                self._write_whole(predictions)
        return predictions.status()

    def with_shares(self) -> int:
        """Rows to a file, of shares that are kept until it is written."""
        from qna.eval import Shares, key_of

        out = Path(os.path.realpath(self.options.out))
        shares = Shares(
            out.with_name(f".{out.name}.shares"),
            _SHARE * self.options.batch_size,
            key_of(self.classifier, top_k=self.options.top_k),
            self._answer,
        )
        with counting("images") as count:
            if self.processes is not None:
                for answered in shares.work(
                    self._found(), rank=self.processes.rank, count=self.processes.count
                ):
                    count(answered)
                self.processes.wait()
                if self.processes.rank > 0:
                    return 0
            # with others all has been counted by now
            predictions = _Counted(shares.all(self._found()), count if self.processes is None else None)
            self._write_whole(predictions)
        shares.remove()
        status = predictions.status()
        # torchrun would take another status for a process that failed, and start all anew
        return status if self.processes is None else 0

    def _found(self) -> Iterable[Prediction]:
        from qna.eval import find_images

        return find_images(_places(self.options.files))

    def _answer(self, entries: Iterable[Prediction]) -> Iterator[Prediction]:
        from qna.eval import predict

        return predict(
            self.classifier,
            entries,
            top_k=self.options.top_k,
            batch_size=self.options.batch_size,
            device=self.device,
        )

    def _write_whole(self, predictions: _Counted) -> None:
        def fill(path: Path) -> None:
            with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
                self.write(file, predictions, self.columns)

        write_whole(self.options.out, fill)


class _Counted:
    """Passes predictions on and counts them."""

    def __init__(self, predictions: Iterable[Prediction], count: Callable[[int], None] | None):
        self.predictions, self.count, self.rows, self.errors = predictions, count, 0, 0

    def __iter__(self) -> Iterator[Prediction]:
        for prediction in self.predictions:
            self.rows += 1
            self.errors += prediction.error is not None
            if self.count is not None:
                self.count(1)
            yield prediction

    def status(self) -> int:
        """The command's, after a word on images without an answer."""
        if self.errors:
            print(f"qna: {self.errors:,} of {self.rows:,} have no answer", file=sys.stderr)
        return 1 if self.errors else 0


def _places(named: list[str]) -> Iterator[str]:
    for name in named:
        if name == "-":
            lines = iter(lambda: sys.stdin.readline(_LONGEST_NAME), "")
            yield from filter(None, (line.rstrip("\r\n") for line in lines))
        else:
            yield name


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
