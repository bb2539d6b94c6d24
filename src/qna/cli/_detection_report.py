"""What a report says and draws of a detector."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from qna._core.outside import as_markdown
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
    _draw_boxes(outcome, outcome.folder / "boxes.png", f"{title}: {result(outcome)}")
    return {"learning curve": "learning_curve.png", "boxes": "boxes.png"}


@torch.no_grad()
def _draw_boxes(outcome: Outcome, path: Path, title: str) -> None:
    """Draw what is there and what was found on held-out images, spread over the whole set."""
    data, network = outcome.data, cast("Detector", outcome.network.eval())
    files = data.held_out
    spread = range(0, len(files), max(1, len(files) // SHOWN))[:SHOWN]
    batch = plain_view(outcome.config, data.mean, data.std)(files, spread)
    device = next(network.parameters()).device
    sizes = [tuple(of_one.nonzero().amax(0).add(1).tolist()) for of_one in batch.mask]
    found = network(batch.images.to(device), batch.mask.to(device))
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
    images, boxes = [], []
    for place, answer in enumerate(network.detections(found, sizes)):
        (height, width), (stored_height, stored_width) = sizes[place], batch.sizes[place]
        shown = batch.images[place, :, :height, :width] * std + mean
        images.append(shown.clamp(0, 1).permute(1, 2, 0).numpy())
        scale = torch.tensor([width / stored_width, height / stored_height]).repeat(2)
        there = [DrawnBox(tuple(c.tolist()), truth=True) for c in batch.truth[place].corners * scale]
        surest = [
            DrawnBox(tuple(corners.tolist()), f"{data.classes[label]} {score:.2f}")
            for score, label, corners in zip(*(value.cpu() for value in answer), strict=True)
            if score >= SURE
        ]
        boxes.append(there + surest)
    plot_boxes(path, images, boxes, title=title)
