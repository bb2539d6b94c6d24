"""What a report says and draws of a network that gives pixels their classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qna._core.outside import as_markdown
from qna.data import UnreadableImage
from qna.data.masks import MaskData
from qna.eval import Segmenter, segment
from qna.plots import plot_confusion, plot_overlays
from qna.train import Outcome

SHOWN = 6
# more classes than these are told by metrics.json alone
CLASSES_SHOWN = 40
HOW_TO_READ = {
    "overlays": "From above: the image, what its mask says, what the network says. Pixels that count nowhere "
    "and those of class 0 have no colour."
}


def result(outcome: Outcome) -> str:
    """The headline in words."""
    scores = outcome.scores
    return f"mean IoU {scores.miou:.2%} on {scores.images:,} held-out images"


def closing(outcome: Outcome) -> str:
    """The line of the closing table."""
    scores = outcome.scores
    return f"mean IoU {scores.miou:.2%}, of outlines {scores.boundary_miou:.2%}, loss {scores.loss:.4f}"


def figures(outcome: Outcome) -> dict[str, str]:
    """Rows of the page."""
    scores, classes = outcome.scores, outcome.data.classes
    rows = {
        "held out, mean IoU": f"{scores.miou:.2%}, of outlines {scores.boundary_miou:.2%}",
        "held out, pixels right": f"{scores.accuracy:.2%} of {scores.pixels:,}",
        "held out, cross entropy": f"{scores.loss:.4f} nats per pixel",
    }
    for name, iou, boundary in list(zip(classes, scores.iou, scores.boundary_iou, strict=True))[
        :CLASSES_SHOWN
    ]:
        rows[f"IoU of {as_markdown(name)}"] = f"{percent(iou)}, of outlines {percent(boundary)}"
    return rows


def percent(part: float | None) -> str:
    """A part in per cent; a dash where there is none."""
    return "-" if part is None else f"{part:.2%}"


def draw(outcome: Outcome, learning: Callable[..., None]) -> dict[str, str]:
    """Draw learning curve, confusion matrix of pixels and overlays.

    Args:
        outcome: of the run, whose folder they go to.
        learning: draws the curve.

    Returns:
        what each shows -> its file.
    """
    folder, scores, data = outcome.folder, outcome.scores, outcome.data
    title = f"{outcome.config.network.model} on {Path(data.name).name}"
    learning(
        folder / "learning_curve.png",
        outcome.history,
        title=title,
        headline="miou",
        missing="Held-out mean IoU, what is missing",
        losses=("training, with Dice", "held out"),
    )
    pictures = {"learning curve": "learning_curve.png"}
    if len(data.classes) <= CLASSES_SHOWN:
        pictures["confusion matrix"] = "confusion_matrix.png"
        # counts of pixels have no room in a cell, per mille of all do
        plot_confusion(
            folder / "confusion_matrix.png",
            [[round(1000 * count / max(scores.pixels, 1)) for count in row] for row in scores.confusion],
            data.classes,
            title=f"{title}: pixels, in thousandths of all",
        )
    if draw_overlays(folder / "overlays.png", _segmenter(outcome), data):
        pictures["overlays"] = "overlays.png"
    return pictures


def draw_overlays(path: Path, segmenter: Segmenter, data: MaskData) -> bool:
    """Draw held-out images with their masks and the network's; False if none can be read."""
    files, shown = data.held_out, []
    for index in range(0, len(files), max(1, len(files) // SHOWN)):
        try:
            image, mask = files.open(index)
        except UnreadableImage:
            continue
        shown.append((image, mask, segment(segmenter, image, next(segmenter.network.parameters()).device)))
    if shown:
        title = f"{segmenter.architecture} on {Path(data.name).name}, held-out images"
        plot_overlays(path, shown[:SHOWN], data.classes, data.palette, ignore=data.ignore, title=title)
    return bool(shown)


def _segmenter(outcome: Outcome) -> Segmenter:
    config, data = outcome.config, outcome.data
    return Segmenter(
        name=config.network.model,
        network=outcome.network.eval(),
        classes=data.classes,
        palette=tuple(data.palette),
        size=config.images.image_size,
        mean=data.mean,
        std=data.std,
        ignore=data.ignore,
        data=data.name,
        architecture=config.network.model,
    )
