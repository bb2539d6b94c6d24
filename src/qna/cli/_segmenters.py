"""`qna predict` and `qna eval` of networks that give pixels their classes."""

from __future__ import annotations

import argparse
import csv
import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from qna._core.errors import InvalidInput, require
from qna._core.files import write_text
from qna._core.outside import as_code, as_line, as_markdown
from qna.cli import _classifiers
from qna.cli._segmentation_report import percent
from qna.data import FileImages, UnreadableImage
from qna.data.images.folder import PathReader
from qna.data.masks import load_masked_folder, save_mask
from qna.eval import Prediction, RegionScores, Segmenter, UnusableAnswers, find_images, judge_regions, segment
from qna.train.folder import claim_folder
from qna.train.reload_segmenter import load_segmenter

# what says how a classifier is made and how it frames an image
_OF_CLASSIFIERS = ("weights", "pretrained", "crop_pct", "mean", "std")


def _refuse(parser: argparse.ArgumentParser, options: argparse.Namespace, names: Sequence[str]) -> None:
    for name in names:
        if getattr(options, name) != parser.get_default(name):
            option = f"--{name.replace('_', '-')}"
            raise InvalidInput(f"{option} means nothing to a network that segments: leave it out")


def predict_masks(parser: argparse.ArgumentParser, options: argparse.Namespace, places: Iterator[str]) -> int:
    """Write a mask for every image, and a row on each to standard output: image, mask, error."""
    _refuse(parser, options, (*_OF_CLASSIFIERS, "top_k", "batch_size", "format"))
    if options.out is None:
        raise InvalidInput("a network that segments writes a mask for each image: give --out FOLDER")
    device = _classifiers.device(options)
    segmenter = load_segmenter(options.model, image_size=options.image_size)
    segmenter.network.to(device)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["image", "mask", "error"])
    written, errors = set[Path](), 0
    for place in places:
        for found in find_images([place]):
            mask, error = options.out / _mask_name(place, found), found.error
            if error is None and (mask in written or mask.resolve() == Path(found.path).resolve()):
                error = f"{mask} is another image's mask or the image itself"
            if error is None:
                error = _write(segmenter, found.path, mask, device)
            written.add(mask)
            errors += error is not None
            writer.writerow([found.path, "" if error else mask, error or ""])
    sys.stdout.flush()
    return 1 if errors else 0


def _mask_name(place: str, found: Prediction) -> Path:
    """Where in the folder a mask goes: as its image lies in the folder that was named."""
    inside = os.path.relpath(found.path, place) if os.path.isdir(place) else os.path.basename(found.path)
    return Path(inside).with_suffix(".png")


def _write(segmenter: Segmenter, path: str, mask: Path, device: torch.device) -> str | None:
    """Write the mask of an image; the cause where that cannot be."""
    try:
        image, _ = FileImages([path], [0], PathReader((Path(path),))).open(0)
        classes = segment(segmenter, image, device)
    except UnreadableImage as error:
        return str(error).removeprefix(f"{path}: ")
    except UnusableAnswers as error:
        return str(error)
    try:
        mask.parent.mkdir(parents=True, exist_ok=True)
        save_mask(mask, classes, segmenter.palette)
    except OSError as error:
        raise InvalidInput(f"cannot write {mask}: {error}") from None
    return None


def eval_masks(parser: argparse.ArgumentParser, options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Judge networks that segment on held-out images, side by side, and write what was found."""
    _refuse(
        parser, options, (*_OF_CLASSIFIERS, "corruptions", "severities", "batch_size", "data_dir", "download")
    )
    device = _classifiers.device(options)
    segmenters = [load_segmenter(source, image_size=options.image_size) for source in options.models]
    data = load_masked_folder(Path(options.data or segmenters[0].data), ignore=segmenters[0].ignore)
    for segmenter in segmenters:
        segmenter.require_fit(data)
    found: list[tuple[Segmenter, RegionScores]] = []
    unreadable: Sequence[str] = ()
    for segmenter in segmenters:
        scores, unreadable = judge_regions(segmenter, data, workers=options.workers, device=device)
        found.append((segmenter, scores))
    tables = {
        f"held-out images of {data.name}": _summary(found),
        "IoU, and of outlines (%)": _by_class(found),
    }
    notes = (
        [f"{len(unreadable):,} images could not be read and count nowhere: {unreadable[0]}"]
        if unreadable
        else []
    )
    _show(tables, notes)
    folder = claim_folder(options.out or Path("runs") / f"eval-{Path(data.name).name}")
    command = shlex.join(["qna", "eval", *arguments])
    try:
        write_text(folder / "scores.json", json.dumps([_plain(*pair) for pair in found]) + "\n")
        write_text(folder / "report.md", _page(tables, notes, command))
    except OSError as error:
        print(f"qna: cannot write the report to {as_line(str(folder))}: {error}", file=sys.stderr)
        return 1
    for name in ("report.md", "scores.json"):
        print(as_line(str(folder / name)))
    return 0


Table = tuple[list[str], list[list[str]]]
Found = Sequence[tuple[Segmenter, RegionScores]]


def _summary(found: Found) -> Table:
    head = ["model", "params (M)", "pixels", "images", "mIoU", "of outlines", "pixels right", "loss"]
    return head, [
        [
            segmenter.name,
            f"{segmenter.parameters / 1e6:.2f}",
            f"{segmenter.size}",
            f"{scores.images:,}",
            *(f"{100 * part:.2f}" for part in (scores.miou, scores.boundary_miou, scores.accuracy)),
            f"{scores.loss:.4f}",
        ]
        for segmenter, scores in found
    ]


def _by_class(found: Found) -> Table:
    names = found[0][0].classes
    head = ["class", *(segmenter.name for segmenter, _ in found)]
    rows = [
        [name, *(f"{percent(scores.iou[n])}, {percent(scores.boundary_iou[n])}" for _, scores in found)]
        for n, name in enumerate(names)
    ]
    return head, rows


def _plain(segmenter: Segmenter, scores: RegionScores) -> dict[str, Any]:
    return {
        "model": segmenter.name,
        "architecture": segmenter.architecture,
        "parameters": segmenter.parameters,
        "size": segmenter.size,
        "classes": segmenter.classes,
        "images": scores.images,
        "miou": scores.miou,
        "boundary_miou": scores.boundary_miou,
        "pixel_accuracy": scores.accuracy,
        "loss": scores.loss,
        "iou": scores.iou,
        "boundary_iou": scores.boundary_iou,
        "confusion": scores.confusion,
    }


def _show(tables: dict[str, Table], notes: Sequence[str]) -> None:
    table = require("rich.table", extra="train", purpose="`qna eval`").Table
    text = require("rich.text", extra="train", purpose="`qna eval`").Text
    console = require("rich.console", extra="train", purpose="`qna eval`").Console()
    for title, (head, rows) in tables.items():
        shown = table(title=text(as_line(title)), title_justify="left", box=None, pad_edge=False)
        for name in head:
            shown.add_column(text(as_line(name)), overflow="fold")
        for row in rows:
            shown.add_row(*(text(as_line(cell)) for cell in row))
        console.print(shown, highlight=False)
    for note in notes:
        console.print(text(as_line(note)))


def _page(tables: dict[str, Table], notes: Sequence[str], command: str) -> str:
    parts = []
    for title, (head, rows) in tables.items():
        cells = [head, [":---"] * len(head), *([as_markdown(cell) for cell in row] for row in rows)]
        lines = "\n".join(f"| {' | '.join(row)} |" for row in [list(map(as_markdown, cells[0])), *cells[1:]])
        parts += [f"## {as_markdown(title[0].upper() + title[1:])}", lines]
    return (
        "\n\n".join([*parts, *map(as_markdown, notes), f"{as_code(command)}, torch {torch.__version__}"])
        + "\n"
    )
