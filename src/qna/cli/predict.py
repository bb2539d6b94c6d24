"""`qna predict`."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from qna._core.errors import InvalidInput
from qna.cli import _classifiers

if TYPE_CHECKING:
    import torch

    from qna.cli._answers import Question
    from qna.eval import Prediction

_DESCRIPTION = """\
Say what is on images. Rows come in the order of the files; an image that cannot be read, or that the
network answers with NaN, gives a row with its error, and the command then ends with status 1. A network that
segments writes a mask for each image, a PNG of its size with the classes' colours, to the folder --out, and
its rows to standard output; one of volumes writes NIfTI files of labels there. A detector gives JSON lines,
one an image, with the boxes in it.

With --out, what is done is kept in a folder beside the file (or in the folder of masks) until all is: the
same command goes on where one was stopped or killed. Started by torchrun, on machines with a common disk, its
processes take turns with shares of the images, and the first writes the rows.
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
    parser.add_argument(
        "--format", choices=("csv", "json"), help="of classes; default: what --out ends in, else csv"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="default: standard output; for a network that segments the folder of the masks",
    )
    parser.add_argument(
        "--pictures",
        type=Path,
        metavar="DIR",
        help="draw boxes or masks on a copy of each image, in this folder",
    )
    parser.add_argument(
        "--least-score", type=float, default=0.5, metavar="S", help="of boxes that are told (default 0.5)"
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
        from qna.cli._segmenters import ask_for_masks as ask
    elif task == "detection":
        from qna.cli._detectors import ask_for_boxes as ask
    elif task == "volumes":
        from qna.cli._volumes import ask_for_volumes as ask
    elif task == "classification":
        ask = ask_for_classes
    else:
        raise InvalidInput(f"{options.model} is a run of {task}, of which `qna predict` makes nothing")
    from qna.cli._answers import answer
    from qna.train.processes import join_processes

    processes = join_processes(cpu=options.device == "cpu")
    device = _classifiers.device(options)  # sets the threads, too
    if processes is not None:
        device = processes.device
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):  # a file's name need not be text
            stream.reconfigure(errors="surrogateescape")
    return answer(ask(parser, options, device), processes, options.files)


def ask_for_classes(
    parser: argparse.ArgumentParser, options: argparse.Namespace, device: torch.device
) -> Question:
    """What a classifier is asked."""
    import qna.eval
    from qna.cli._answers import Question, kept_beside, places, refuse

    refuse(parser, options, ("pictures", "least_score"), "classifies")
    (classifier,) = _classifiers.load(options, [options.model])
    columns = min(options.top_k, len(classifier.classes))
    suffix = None if options.out is None else options.out.suffix.removeprefix(".").lower()
    form = options.format or (suffix if suffix in ("csv", "json") else "csv")
    return Question(
        kind=qna.eval.Prediction,
        found=lambda: qna.eval.find_images(places(options.files)),
        answer=lambda entries: qna.eval.predict(
            classifier, entries, top_k=options.top_k, batch_size=options.batch_size, device=device
        ),
        write=_write_json if form == "json" else partial(_write_csv, columns=columns),
        out=options.out,
        kept=kept_beside(options.out),
        size=_SHARE * options.batch_size,
        key=lambda: qna.eval.key_of(classifier.network, classifier.view, classifier.classes, options.top_k),
    )


def _write_csv(file: TextIO, predictions: Iterable[Prediction], *, columns: int) -> None:
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


def _write_json(file: TextIO, predictions: Iterable[Prediction]) -> None:
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
