"""The common look of the pictures, and how they are saved."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
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
    # a name may hold dollars
    "text.parse_math": False,
}

# fonts of systems with letters that matplotlib's own lacks; those that are there are asked in this order
_MORE_LETTERS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Source Han Sans",
    "Hiragino Sans",
    "PingFang SC",
    "Yu Gothic",
    "Microsoft YaHei",
    "Malgun Gothic",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Arial Unicode MS",
)


def ink_on(colour: Sequence[float]) -> str:
    """White or the dark ink, whichever stands out more on `colour` (red, green, blue in [0, 1]).

    By the contrast ratio of the Web Content Accessibility Guidelines 2.2: (lighter + 0.05) / (darker + 0.05),
    of relative luminances.
    """
    behind = 0.05 + _luminance(colour)
    ink = 0.05 + _luminance([int(INK[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return INK if behind / ink > 1.05 / behind else "white"


def _luminance(colour: Sequence[float]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@contextmanager
def figure(path: Path, width: float, height: float, *, formats: tuple[str, ...] = ("png",)) -> Iterator[Any]:
    """Give an empty figure of `width` x `height` inches and save it to `path` afterwards.

    `path` ends in the first of `formats`; the others lie beside it under the same name.

    The figure is drawn without a display and without matplotlib's global state. Text is never read as math; a
    letter that no font has is drawn as a box.
    """
    matplotlib = require("matplotlib", extra="train", purpose="drawing")
    pictures = require("matplotlib.figure", extra="train", purpose="drawing")
    with matplotlib.rc_context({**_LOOK, "font.family": _fonts()}), _quiet_fonts():
        canvas = pictures.Figure(figsize=(width, height), layout="constrained", dpi=130)
        yield canvas
        for suffix in formats:

            def write(temporary: Path, suffix: str = suffix) -> None:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", r"Glyph .* missing from font", UserWarning)
                    canvas.savefig(temporary, format=suffix)

            write_whole(path.with_suffix(f".{suffix}"), write)


@contextmanager
def _quiet_fonts() -> Iterator[None]:
    """Inside the block nothing is said of a font that has no bold letters: its plain ones are taken."""
    log = logging.getLogger("matplotlib.font_manager")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


@cache
def _fonts() -> list[str]:
    """The fonts that letters are looked for in, in order."""
    fonts = require("matplotlib.font_manager", extra="train", purpose="drawing").fontManager
    there = set(fonts.get_font_names())
    return ["DejaVu Sans", *(name for name in _MORE_LETTERS if name in there)]
