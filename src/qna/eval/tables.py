"""Judgements as rows of plain values, for CSV, JSON and tables; nothing is rounded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from qna.eval.corruptions import CORRUPTIONS
from qna.eval.judgement import CLEAN, Failure, Judgement


def score_rows(judgements: Sequence[Judgement], failures: Sequence[Failure] = ()) -> list[dict[str, Any]]:
    """One row per classifier and condition, and one per classifier that could not be judged."""
    rows: list[dict[str, Any]] = [
        {
            "model": judgement.classifier.name,
            "corruption": condition.corruption,
            "severity": condition.severity,
            "level": None
            if condition == CLEAN
            else CORRUPTIONS[condition.corruption].levels[condition.severity - 1],
            "images": result.scores.images,
            "top1": result.scores.top1,
            "top5": result.scores.top5,
            "loss": _finite(result.scores.loss),
            "ece": result.calibration_error,
            "error": None,
        }
        for judgement in judgements
        for condition, result in judgement.results.items()
    ]
    names = ("corruption", "severity", "level", "images", "top1", "top5", "loss", "ece")
    return rows + [
        {"model": failure.name, **dict.fromkeys(names), "error": failure.error} for failure in failures
    ]


def class_rows(judgement: Judgement) -> list[dict[str, Any]]:
    """One row per class: its images, how many are right, and what the others were taken for most often.

    `recall` is the part of the class's images that is right, `precision` the part of the images taken for the
    class that belong to it; None where there are no such images.
    """
    confusion = judgement.clean.scores.confusion
    rows = []
    for number, name in enumerate(judgement.classes):
        images, taken = sum(confusion[number]), sum(row[number] for row in confusion)
        right = confusion[number][number]
        errors = [0 if other == number else count for other, count in enumerate(confusion[number])]
        rows.append(
            {
                "model": judgement.classifier.name,
                "class": name,
                "images": images,
                "right": right,
                "recall": right / images if images else None,
                "precision": right / taken if taken else None,
                "most_often_taken_for": judgement.classes[errors.index(max(errors))] if any(errors) else None,
            }
        )
    return rows


def to_json(judgement: Judgement) -> dict[str, Any]:
    """Everything of one judgement."""
    classifier, clean = judgement.classifier, judgement.clean
    return {
        "model": classifier.name,
        "architecture": classifier.architecture,
        "parameters": classifier.parameters,
        "view": asdict(classifier.view),
        "data": judgement.data,
        "images": clean.scores.images,
        "unreadable": list(judgement.unreadable),
        "right": clean.scores.right,
        "top1": clean.scores.top1,
        "top5": clean.scores.top5,
        "loss": _finite(clean.scores.loss),
        "ece": clean.calibration_error,
        "corrupted_top1": judgement.corrupted_top1,
        "speed": asdict(judgement.speed),
        "conditions": [
            {name: value for name, value in row.items() if name not in ("model", "error")}
            for row in score_rows([judgement])
        ],
        "calibration": [asdict(b) for b in clean.bins],
        "classes": [
            {name: value for name, value in row.items() if name != "model"} for row in class_rows(judgement)
        ],
        "confusion": clean.scores.confusion,
    }


def _finite(loss: float) -> float | None:
    """None for infinity, which JSON cannot tell: a network may give the right class no probability at all."""
    return loss if math.isfinite(loss) else None
