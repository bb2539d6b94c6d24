"""`qna predict` and `qna eval` of networks that give pixels their classes."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import torch

from qna._core.errors import InvalidInput
from qna.cli import _classifiers
from qna.cli._answers import OF_CLASSIFIERS, Question, found_with_names, refuse
from qna.cli._dense_eval import DenseTask, Found, eval_networks
from qna.cli._segmentation_report import draw_overlays, percent
from qna.cli._tables import Table
from qna.data.masks import load_masked_folder, save_mask
from qna.eval import MaskPrediction, RegionScores, Segmenter, judge_regions, key_of, predict_masks
from qna.plots import with_mask
from qna.train.reload_segmenter import load_segmenter

# images of a share
_SHARE = 32
_WHAT = "segments"


def ask_for_masks(
    parser: argparse.ArgumentParser, options: argparse.Namespace, device: torch.device
) -> Question:
    """What a network that segments is asked: a mask for every image, and a row on each."""
    refuse(parser, options, (*OF_CLASSIFIERS, "top_k", "batch_size", "format", "least_score"), _WHAT)
    masks, pictures = options.out, options.pictures
    if masks is None:
        raise InvalidInput("a network that segments writes a mask for each image: give --out FOLDER")
    segmenter = load_segmenter(options.model, image_size=options.image_size)
    folders = {"--out": masks, "--pictures": pictures}

    def write(answer: MaskPrediction, image: Any, classes: Any) -> None:
        for folder in filter(None, folders.values()):
            (folder / answer.name).parent.mkdir(parents=True, exist_ok=True)
        save_mask(masks / answer.name, classes, segmenter.palette)
        if pictures is not None:
            with_mask(image, classes, segmenter.palette).save(pictures / answer.name)

    masks.mkdir(parents=True, exist_ok=True)
    return Question(
        kind=MaskPrediction,
        found=lambda: found_with_names(MaskPrediction, options.files, folders),
        answer=lambda entries: predict_masks(segmenter, entries, write, device=device),
        write=partial(_write_rows, masks=masks),
        kept=masks / ".shares",
        size=_SHARE,
        key=lambda: key_of(segmenter.network, segmenter.size, segmenter.mean, segmenter.std, str(pictures)),
        stands=lambda answer: (
            answer.error is not None
            or all((folder / answer.name).is_file() for folder in filter(None, folders.values()))
        ),
    )


def _write_rows(file: TextIO, answers: Iterable[MaskPrediction], *, masks: Path) -> None:
    """A row per image: image, mask, error."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["image", "mask", "error"])
    for answer in answers:
        writer.writerow([answer.path, "" if answer.error else masks / answer.name, answer.error or ""])


def eval_masks(parser: argparse.ArgumentParser, options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Judge networks that segment on held-out images, side by side, and write what was found."""
    refuse(
        parser,
        options,
        (*OF_CLASSIFIERS, "corruptions", "severities", "batch_size", "data_dir", "download"),
        _WHAT,
    )
    device = _classifiers.device(options)
    segmenters = [load_segmenter(source, image_size=options.image_size) for source in options.models]
    data = load_masked_folder(Path(options.data or segmenters[0].data), ignore=segmenters[0].ignore)
    task = DenseTask(
        judge=lambda segmenter, data, told: judge_regions(
            segmenter, data, workers=options.workers, device=device, told=told
        ),
        tables=_tables,
        plain=_plain,
        picture="overlays",
        draw=draw_overlays,
        notes=[
            "Intersection over union in %, mean over the classes that are there; of outlines: of the pixels "
            "within 2 % of the diagonal of one. Loss: cross entropy, in nats per pixel."
        ],
    )
    return eval_networks(task, segmenters, data, options, arguments)


def _tables(found: Found, columns: Sequence[str]) -> dict[str, Table]:
    head = ["model", "params (M)", "pixels", "images", "mIoU", "of outlines", "pixels right", "loss"]
    rows = [
        [
            segmenter.name if len(found) == 1 else f"{column}  {segmenter.name}",
            f"{segmenter.parameters / 1e6:.2f}",
            f"{segmenter.size}",
            f"{scores.images:,}",
            *(f"{100 * part:.2f}" for part in (scores.miou, scores.boundary_miou, scores.accuracy)),
            f"{scores.loss:.4f}",
        ]
        for column, (segmenter, scores) in zip(columns, found, strict=True)
    ]
    of_class = [
        [name, *(f"{percent(scores.iou[n])}, {percent(scores.boundary_iou[n])}" for _, scores in found)]
        for n, name in enumerate(found[0][0].classes)
    ]
    names = columns if len(found) > 1 else ["IoU, of outlines"]
    return {
        "held-out images": (head, rows),
        "IoU of each class, and of its outlines": (["class", *names], of_class),
    }


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
