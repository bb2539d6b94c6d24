"""The common look of the pictures, and how they are saved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qna._core.errors import require
from qna._core.files import write_whole

INK, QUIET, FIRST, SECOND = "#222222", "#8a8a8a", "#0b6e99", "#d1495b"

_LOOK = {
    "font.size": 10,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "text.color": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
}


@contextmanager
def figure(path: Path, width: float, height: float, *, formats: tuple[str, ...] = ("png",)) -> Iterator[Any]:
    """Give an empty figure of `width` x `height` inches and save it to `path` afterwards.

    `path` ends in the first of `formats`; the others lie beside it under the same name.

    The figure is drawn without a display and without matplotlib's global state.
    """
    matplotlib = require("matplotlib", extra="train", purpose="drawing")
    pictures = require("matplotlib.figure", extra="train", purpose="drawing")
    with matplotlib.rc_context(_LOOK):
        canvas = pictures.Figure(figsize=(width, height), layout="constrained", dpi=130)
        yield canvas
        for suffix in formats:

            def write(temporary: Path, suffix: str = suffix) -> None:
                canvas.savefig(temporary, format=suffix)

            write_whole(path.with_suffix(f".{suffix}"), write)
