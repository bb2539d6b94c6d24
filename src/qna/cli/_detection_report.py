"""What a report says and draws of a detector."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from qna._core.outside import as_markdown
from qna.data import UnreadableImage
from qna.data.boxes import BoxData
from qna.eval import BoxFinder, find_boxes
from qna.plots import DrawnBox, plot_boxes
from qna.train import Outcome
from qna.train.tasks.detection import plain_view

if TYPE_CHECKING:
    from qna.models.detectors import Detector

SHOWN = 8
# least score of a box that is drawn
SURE = 0.5
HOW_TO_READ = {
    "boxes": f"Dashed boxes are there; the others were found, with a score of at least {SURE:g}.",
}


def result(outcome: Outcome) -> str:
    """The headline in words."""
    return f"mean average precision {outcome.scores.map:.3f} on {outcome.scores.images:,} held-out images"


def closing(outcome: Outcome) -> str:
    """The line of the closing table."""
    scores = outcome.scores
    return f"mAP {scores.map:.3f} (at IoU 0.5: {scores.map_50:.3f}), loss {scores.loss:.4f}"


def figures(outcome: Outcome) -> dict[str, str]:
    """Rows of the page."""
    scores = outcome.scores
    at = {"IoU 0.5": scores.map_50, "IoU 0.75": scores.map_75}
    sizes = {"small": scores.map_small, "medium": scores.map_medium, "large": scores.map_large}
    classes = dict(zip(outcome.data.classes, scores.of_class, strict=True))
    return {
        "held out, mAP": f"{scores.map:.4f}",
        **{f"held out, at {where}": f"{value:.4f}" for where, value in at.items()},
        **{f"held out, {size} boxes": f"{value:.4f}" for size, value in sizes.items() if value is not None},
        "held out, recall": f"{scores.recall:.4f}",
        "held out, loss": f"{scores.loss:.4f}",
        "held out, by class": ", ".join(
            f"{as_markdown(name)} {value:.3f}" for name, value in classes.items() if value is not None
        ),
    }


def draw(outcome: Outcome, learning: Callable[..., None]) -> dict[str, str]:
    """Draw learning curve and boxes.

    Args:
        outcome: of the run, whose folder they go to.
        learning: draws the curve.

    Returns:
        what each shows -> its file.
    """
    title = f"{outcome.config.network.model} on {Path(outcome.data.name).name}"
    learning(
        outcome.folder / "learning_curve.png",
        outcome.history,
        title=title,
        headline="map",
        missing="Missing of a mean average precision of 1",
        unit="loss of the detector",
    )
    pictures = {"learning curve": "learning_curve.png"}
    if draw_found(outcome.folder / "boxes.png", _finder(outcome), outcome.data):
        pictures["boxes"] = "boxes.png"
    return pictures


def draw_found(path: Path, finder: BoxFinder, data: BoxData) -> bool:
    """Draw what is there and what was found on held-out images; False if none can be read."""
    files, images, boxes = data.held_out, [], []
    device = next(finder.network.parameters()).device
    for index in range(0, len(files), max(1, len(files) // SHOWN)):
        try:
            image, truth = files.open(index)
        except UnreadableImage:
            continue
        images.append(image)
        there = [DrawnBox(tuple(corners), truth=True) for corners in truth.corners.tolist()]
        scores, labels, corners = find_boxes(finder, image, device)
        surest = [
            DrawnBox(tuple(box), f"{data.classes[label]} {score:.2f}")
            for score, label, box in zip(scores.tolist(), labels.tolist(), corners.tolist(), strict=True)
            if score >= SURE
        ]
        boxes.append(there + surest)
    if images:
        title = f"{finder.architecture} on {Path(data.name).name}, held-out images"
        plot_boxes(path, images[:SHOWN], boxes[:SHOWN], title=title)
    return bool(images)


def _finder(outcome: Outcome) -> BoxFinder:
    config, data = outcome.config, outcome.data
    return BoxFinder(
        name=config.network.model,
        network=cast("Detector", outcome.network.eval()),
        classes=data.classes,
        view=plain_view(config, data.mean, data.std),
        data=data.name,
        images_dir=config.detection.images_dir,
        drop_bad_boxes=config.detection.drop_bad_boxes,
        architecture=f"{config.detection.detector} around {config.network.model}",
    )
