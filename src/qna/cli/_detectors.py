"""`qna predict` and `qna eval` of networks that find things in boxes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import torch

from qna._core.errors import InvalidInput
from qna.cli import _classifiers
from qna.cli._answers import OF_CLASSIFIERS, Question, found_with_names, kept_beside, refuse
from qna.cli._dense_eval import DenseTask, Found, eval_networks
from qna.cli._detection_report import draw_found
from qna.cli._tables import Table
from qna.data.boxes import load_coco
from qna.eval import BoxFinder, BoxPrediction, BoxScores, judge_boxes, key_of, predict_boxes
from qna.plots import DrawnBox, with_boxes
from qna.train.reload_detector import load_detector

# images of a share
_SHARE = 32
_WHAT = "detects"


def ask_for_boxes(
    parser: argparse.ArgumentParser, options: argparse.Namespace, device: torch.device
) -> Question:
    """What a detector is asked."""
    refuse(parser, options, (*OF_CLASSIFIERS, "top_k", "batch_size", "format"), _WHAT)
    if not 0 <= options.least_score <= 1:
        raise InvalidInput(f"--least-score must be from 0 to 1, got {options.least_score:g}")
    finder = load_detector(options.model, image_size=options.image_size)
    pictures = options.pictures

    def draw(prediction: BoxPrediction, image: Any) -> None:
        if pictures is not None:
            boxes = [DrawnBox(found.box, f"{found.label} {found.score:.2f}") for found in prediction.boxes]
            path = pictures / prediction.name
            path.parent.mkdir(parents=True, exist_ok=True)
            with_boxes(image, boxes).save(path)

    return Question(
        kind=BoxPrediction,
        found=lambda: found_with_names(BoxPrediction, options.files, {"--pictures": pictures}),
        answer=lambda entries: predict_boxes(
            finder, entries, least_score=options.least_score, device=device, told=draw
        ),
        write=_write_lines,
        out=options.out,
        kept=kept_beside(options.out),
        size=_SHARE,
        key=lambda: key_of(finder.network, finder.view, finder.classes, options.least_score, str(pictures)),
        stands=lambda answer: (
            pictures is None or answer.error is not None or (pictures / answer.name).is_file()
        ),
    )


def _write_lines(file: TextIO, predictions: Iterable[BoxPrediction]) -> None:
    """An object per image, on a line of its own: path, width, height, boxes, error."""
    for prediction in predictions:
        read = prediction.error is None
        about = {
            "path": prediction.path,
            "width": prediction.width if read else None,
            "height": prediction.height if read else None,
            "boxes": [
                {
                    "label": found.label,
                    "score": round(found.score, 6),
                    "box": [round(x, 2) for x in found.box],
                }
                for found in prediction.boxes
            ],
            "error": prediction.error,
        }
        file.write(json.dumps(about, allow_nan=False) + "\n")


def eval_boxes(parser: argparse.ArgumentParser, options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Judge detectors on held-out images, side by side, and write what was found."""
    refuse(parser, options, (*OF_CLASSIFIERS, "corruptions", "severities", "data_dir", "download"), _WHAT)
    device = _classifiers.device(options)
    finders = [load_detector(source, image_size=options.image_size) for source in options.models]
    first = finders[0]
    data = load_coco(
        Path(options.data or first.data),
        # of the data that it learned from
        None if options.data else first.images_dir,
        drop_bad_boxes=first.drop_bad_boxes,
    )
    judge = partial(judge_boxes, batch_size=options.batch_size, workers=options.workers, device=device)
    task = DenseTask(
        judge=lambda finder, data, told: judge(finder, data, told=told),
        tables=_tables,
        plain=_plain,
        picture="boxes",
        draw=draw_found,
        notes=[
            "Average precision in % as COCO counts it: mAP over IoU 0.5 to 0.95; of boxes of less than "
            "32 x 32 pixels (small), up to 96 x 96 (medium), and larger; recall with 100 answers an image."
        ],
    )
    return eval_networks(task, finders, data, options, arguments)


def _tables(found: Found, columns: Sequence[str]) -> dict[str, Table]:
    head = ["model", "params (M)", "pixels", "images", "mAP", "at 0.5", "at 0.75"]
    head += ["small", "medium", "large", "recall"]
    rows = []
    for column, (finder, scores) in zip(columns, found, strict=True):
        sizes = scores.map_small, scores.map_medium, scores.map_large
        figures = (scores.map, scores.map_50, scores.map_75, *sizes, scores.recall)
        rows.append(
            [
                finder.name if len(found) == 1 else f"{column}  {finder.name}",
                f"{finder.parameters / 1e6:.2f}",
                f"{finder.view.size}",
                f"{scores.images:,}",
                *map(_percent, figures),
            ]
        )
    of_class = [
        [name, *(_percent(scores.of_class[n]) for _, scores in found)]
        for n, name in enumerate(found[0][0].classes)
    ]
    return {
        "held-out images": (head, rows),
        "mAP of each class (%)": (["class", *(columns if len(found) > 1 else ["mAP"])], of_class),
    }


def _percent(part: float | None) -> str:
    return "-" if part is None else f"{100 * part:.2f}"


def _plain(finder: BoxFinder, scores: BoxScores) -> dict[str, Any]:
    figures = {name: value for name, value in vars(scores).items() if name not in ("of_class", "loss")}
    return {
        "model": finder.name,
        "architecture": finder.architecture,
        "parameters": finder.parameters,
        "size": finder.view.size,
        "classes": finder.classes,
        **figures,
        "map_of_class": scores.of_class,
    }
