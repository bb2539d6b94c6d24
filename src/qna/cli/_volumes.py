"""`qna predict` and `qna eval` of networks that give voxels their classes."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from qna._core.errors import InvalidInput
from qna.cli import _classifiers
from qna.cli._answers import OF_CLASSIFIERS, Question, places, refuse
from qna.cli._dense_eval import DenseTask, Found, eval_networks
from qna.cli._progress import bars
from qna.cli._segmentation_report import percent
from qna.cli._tables import Table
from qna.cli._volumes_report import draw_slices
from qna.data.volumes import Grid, write_labels
from qna.eval import key_of
from qna.eval.lesions import VolumeScores
from qna.eval.volumes import (
    VolumePrediction,
    VolumeSegmenter,
    find_volumes,
    judge_volumes,
    predict_volumes,
)
from qna.train.reload_volumes import load_volume_segmenter
from qna.train.tasks.volumes import load_volumes

# volumes of a share
_SHARE = 2
_WHAT = "segments volumes"
_OF_IMAGES = ("image_size", "batch_size")


def ask_for_volumes(
    parser: argparse.ArgumentParser, options: argparse.Namespace, device: torch.device
) -> Question:
    """What a network of volumes is asked: a NIfTI file of labels for every volume, and a row on each."""
    others = ("top_k", "format", "least_score", "pictures")
    refuse(parser, options, (*OF_CLASSIFIERS, *_OF_IMAGES, *others), _WHAT)
    folder = options.out
    if folder is None:
        raise InvalidInput("a network of volumes writes labels for each volume: give --out FOLDER")
    segmenter = load_volume_segmenter(options.model)

    def write(answer: VolumePrediction, classes: np.ndarray, grid: Grid) -> None:
        (folder / answer.name).parent.mkdir(parents=True, exist_ok=True)
        write_labels(folder / answer.name, classes, grid)

    def answered(entries: Iterable[VolumePrediction]) -> Iterator[VolumePrediction]:
        with bars("`qna predict`") as begin:
            yield from predict_volumes(segmenter, entries, write, device=device, begin=begin)

    folder.mkdir(parents=True, exist_ok=True)
    return Question(
        kind=VolumePrediction,
        found=lambda: _found(options.files, folder),
        answer=answered,
        write=partial(_write_rows, folder=folder, classes=segmenter.classes),
        kept=folder / ".shares",
        size=_SHARE,
        key=lambda: key_of(segmenter.network, segmenter.classes),
        stands=lambda answer: answer.error is not None or (folder / answer.name).is_file(),
        # windows of each volume are counted instead
        counted=None,
    )


def _found(named: list[str], folder: Path) -> Iterator[VolumePrediction]:
    """An entry for every volume; one whose labels would take another's place, or its own, says so."""
    taken, own = set[str](), folder.resolve()
    for place in places(named):
        if Path(place).is_dir() and own.is_relative_to(Path(place).resolve()):
            raise InvalidInput(
                f"--out {folder} lies in {place}, which is searched for volumes: name a folder outside"
            )
        for entry in find_volumes([place]):
            error = entry.error
            itself = any(Path(file).resolve() == own / entry.name for file in entry.files)
            if error is None and (entry.name in taken or itself):
                error = f"{folder / entry.name} is another volume's or the volume itself"
            taken.add(entry.name)
            yield replace(entry, error=error)


def _write_rows(
    file: TextIO, answers: Iterable[VolumePrediction], *, folder: Path, classes: Sequence[str]
) -> None:
    """A row per volume: volume, labels, millilitres of each class from number 1 on, error."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["volume", "labels", *(f"{name} (ml)" for name in classes[1:]), "error"])
    for answer in answers:
        labels = "" if answer.error else folder / answer.name
        sizes = [f"{ml:.3f}" for ml in answer.millilitres[1:]] or [""] * (len(classes) - 1)
        writer.writerow([answer.path, labels, *sizes, answer.error or ""])


def eval_volumes(
    parser: argparse.ArgumentParser, options: argparse.Namespace, arguments: Sequence[str]
) -> int:
    """Judge networks of volumes on held-out volumes, side by side, and write what was found."""
    of_others = ("corruptions", "severities", "data_dir", "download", "workers")
    refuse(parser, options, (*OF_CLASSIFIERS, *_OF_IMAGES, *of_others), _WHAT)
    device = _classifiers.device(options)
    segmenters = [load_volume_segmenter(source) for source in options.models]
    config = segmenters[0].config
    if options.data is not None:
        config = replace(config, images=replace(config.images, data=options.data))
    task = DenseTask(
        judge=lambda segmenter, data, told: judge_volumes(segmenter, data, device=device, told=told),
        tables=_tables,
        plain=_plain,
        picture="slices",
        draw=draw_slices,
        notes=[
            "Dice in %, of each class a mean over the volumes in which it is. A lesion is what hangs "
            "together of a class; it is found where a tenth of its voxels are. Finds for nothing meet no "
            "lesion. Loss: cross entropy, in nats per voxel."
        ],
    )
    return eval_networks(task, segmenters, load_volumes(config), options, arguments)


def _tables(found: Found, columns: Sequence[str]) -> dict[str, Table]:
    head = ["model", "params (M)", "window", "volumes", "Dice", "lesions found", "finds for nothing", "loss"]
    rows = [
        [
            segmenter.name if len(found) == 1 else f"{column}  {segmenter.name}",
            f"{segmenter.parameters / 1e6:.2f}",
            " x ".join(map(str, segmenter.network.window)),
            f"{scores.volumes:,}",
            f"{100 * scores.mean_dice:.2f}",
            percent(scores.recall),
            f"{scores.false_finds:,}",
            f"{scores.loss:.4f}",
        ]
        for column, (segmenter, scores) in zip(columns, found, strict=True)
    ]
    names = columns if len(found) > 1 else ["Dice"]
    classes = found[0][0].classes[1:]
    of_class = [[name, *(percent(s.dice[n]) for _, s in found)] for n, name in enumerate(classes)]
    of_size = [
        [size.name, f"{size.there:,}", *(percent(s.sizes[n].recall) for _, s in found)]
        for n, size in enumerate(found[0][1].sizes)
    ]
    return {
        "held-out volumes": (head, rows),
        "Dice of each class": (["class", *names], of_class),
        "lesions found, by size": (
            ["size", "lesions", *(columns if len(found) > 1 else ["found"])],
            of_size,
        ),
    }


def _plain(segmenter: VolumeSegmenter, scores: VolumeScores) -> dict[str, Any]:
    return {
        "model": segmenter.name,
        "architecture": segmenter.architecture,
        "parameters": segmenter.parameters,
        "window": segmenter.network.window,
        "classes": segmenter.classes,
        "volumes": scores.volumes,
        "mean_dice": scores.mean_dice,
        "dice": scores.dice,
        "loss": scores.loss,
        "recall": scores.recall,
        "false_finds": scores.false_finds,
        "sizes": [{**vars(size), "recall": size.recall} for size in scores.sizes],
    }
