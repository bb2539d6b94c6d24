"""What a report says and draws of a network that gives voxels their classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import torch

from qna._core.outside import as_markdown
from qna.cli._segmentation_report import CLASSES_SHOWN, SHOWN, percent
from qna.data.masks import colours
from qna.data.volumes import VolumeData
from qna.eval.volumes import VolumeSegmenter, answered
from qna.models.volumes import SlidingWindows
from qna.plots import plot_overlays
from qna.train import Outcome

# standard deviations between black and white
_RANGE = (-3.0, 3.0)
# no number of a class
_IGNORED = 256
HOW_TO_READ = {
    "slices": "A slice of each held-out volume, the one with most voxels of a class. From above: the volume, "
    "what its labels say, what the network says; voxels of class 0 have no colour."
}


def result(outcome: Outcome) -> str:
    """The headline in words."""
    scores = outcome.scores
    return f"mean Dice {scores.mean_dice:.2%} on {scores.volumes:,} held-out volumes"


def closing(outcome: Outcome) -> str:
    """The line of the closing table."""
    s = outcome.scores
    return f"mean Dice {s.mean_dice:.2%}, {percent(s.recall)} of lesions found, {s.false_finds:,} for nothing"


def figures(outcome: Outcome) -> dict[str, str]:
    """Rows of the page."""
    scores, classes = outcome.scores, outcome.data.classes[1:]
    rows = {
        "held out, mean Dice": f"{scores.mean_dice:.2%}",
        "held out, cross entropy": f"{scores.loss:.4f} nats per voxel",
        "held out, found for nothing": f"{scores.false_finds:,} in {scores.volumes:,} volumes",
    }
    for name, dice in list(zip(classes, scores.dice, strict=True))[:CLASSES_SHOWN]:
        rows[f"Dice of {as_markdown(name)}"] = percent(dice)
    for size in scores.sizes:
        if size.there:
            rows[f"lesions of {size.name}"] = f"{size.found:,} of {size.there:,} found"
    return rows


def draw(outcome: Outcome, learning: Callable[..., None]) -> dict[str, str]:
    """Draw learning curve and slices with overlays.

    Args:
        outcome: of the run, whose folder they go to.
        learning: draws the curve.

    Returns:
        what each shows -> its file.
    """
    folder, data = outcome.folder, outcome.data
    learning(
        folder / "learning_curve.png",
        outcome.history,
        title=f"{outcome.config.network.model} on {Path(data.name).name}",
        headline="mean_dice",
        missing="Held-out mean Dice, what is missing",
        losses=("training, with Dice", "held out"),
    )
    segmenter = VolumeSegmenter(
        name=outcome.config.network.model,
        network=cast(SlidingWindows, outcome.network.eval()),
        classes=data.classes,
        channels=data.channels,
        config=outcome.config,
    )
    pictures = {"learning curve": "learning_curve.png"}
    if draw_slices(folder / "slices.png", segmenter, data):
        pictures["slices"] = "slices.png"
    return pictures


@torch.no_grad()
def draw_slices(path: Path, segmenter: VolumeSegmenter, data: VolumeData) -> bool:
    """Draw a slice of held-out volumes with their labels and the network's; False if there are none."""
    device, shown = next(segmenter.network.parameters()).device, []
    for index in range(0, len(data.held_out), max(1, -(-len(data.held_out) // SHOWN))):
        volume = data.held_out.open(index)
        given = answered(segmenter.network, volume.image[None].to(device), None)[0].argmax(0).cpu()
        # across the last axis, as a volume in millimetres usually lies: seen from above
        level = int((volume.classes > 0).sum((0, 1)).argmax())
        low, high = _RANGE
        grey = ((volume.image[0, :, :, level] - low) / (high - low)).clamp(0, 1).mul(255)
        picture = np.repeat(_upright(grey.numpy())[..., None], 3, -1)
        shown.append(
            (picture, *(_upright(labels[:, :, level].numpy()) for labels in (volume.classes, given)))
        )
    if shown:
        title = f"{segmenter.architecture} on {Path(data.name).name}, held-out volumes"
        plot_overlays(
            path,
            shown[:SHOWN],
            data.classes,
            colours(len(data.classes)),
            ignore=_IGNORED,
            title=title,
        )
    return bool(shown)


def _upright(slice_: np.ndarray) -> np.ndarray:
    """The second axis upwards."""
    return np.ascontiguousarray(slice_.T[::-1])
