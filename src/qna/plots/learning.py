"""The learning curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qna._core.outside import as_line
from qna.plots._style import FIRST, QUIET, SECOND, figure


def plot_learning(
    path: Path,
    history: Sequence[Mapping[str, Any]],
    *,
    title: str = "",
    headline: str = "top1",
    missing: str = "Held-out images wrong",
    losses: tuple[str, str] = ("training", "held out"),
    unit: str = "cross entropy (nats)",
    part: bool = True,
) -> None:
    """Draw loss and held-out error over the epochs.

    Args:
        path: of the PNG.
        history: per epoch: epoch, train_loss, loss (held out) and the headline (held out).
        title: above the picture.
        headline: the name of what the error is missing from 1, or of the figure that is drawn itself.
        missing: what the error is, or the figure, in words.
        losses: what the two losses are.
        unit: of both losses.
        part: whether the headline is a part of 1.
    """
    epochs = [record["epoch"] for record in history]
    with figure(path, 9, 3.6) as canvas:
        canvas.suptitle(as_line(title), x=0.01, ha="left", fontsize=12)
        left, errors = canvas.subplots(1, 2)
        marker = "o" if len(epochs) == 1 else None  # a line through one point is invisible
        for key, colour, name in zip(("train_loss", "loss"), (FIRST, SECOND), losses, strict=True):
            left.plot(epochs, [record[key] for record in history], color=colour, label=name, marker=marker)
        left.set(xlabel="epoch", ylabel=unit, title="Loss")
        left.legend()
        error = [100 * (1 - record[headline]) if part else record[headline] for record in history]
        errors.plot(epochs, error, color=SECOND, marker=marker)
        if part and min(error) > 0:
            from matplotlib.ticker import LogFormatter

            errors.set_yscale("log")
            errors.yaxis.set_major_formatter("{x:g}")
            # over many decades only some steps between powers of ten have room for a number
            errors.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.5)))
        errors.set(xlabel="epoch", ylabel="error (%)" if part else missing)
        errors.set_title(f"{missing}: {error[-1]:.2f}{' %' if part else ''} at the end")
        for axes in (left, errors):
            axes.grid(axis="y", which="both", color=QUIET, alpha=0.2)
            axes.xaxis.get_major_locator().set_params(integer=True)
