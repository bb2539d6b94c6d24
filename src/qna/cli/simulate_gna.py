"""`qna simulate-gna`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from qna._core.errors import InvalidInput, require

if TYPE_CHECKING:
    from qna.analysis.tile_simulator import TileSimulation

_DESCRIPTION = """\
Count the tiles that Generalized Neighborhood Attention (arXiv 2504.16922) visits, and what it can gain by it
at most over attention of all to all: in the mean, and for the tile of queries that visits the most. Sizes are
written as 30x48x80, or as one number for all axes. Without --stride, --q-tile or --kv-tile these are
searched, and the front is printed: choices that nothing beats in both window error and speed-up. Window error
is the mean distance between the window that a query would have alone (stride 1) and that of its stride group:
positions per axis, added over the axes. Nothing is measured: kernels gain less than these bounds.
"""
_PATIENCE = 2.0


def main(arguments: list[str]) -> int:
    """Simulate one choice, or search."""
    parser = argparse.ArgumentParser("qna simulate-gna", description=_DESCRIPTION)
    parser.add_argument("--input", required=True, metavar="SIZE", help="positions of the map")
    parser.add_argument("--window", required=True, metavar="SIZE", help="keys of a window")
    parser.add_argument("--stride", metavar="SIZE", help="queries that share a window (default: searched)")
    parser.add_argument("--q-tile", metavar="SIZE", help="queries of a tile (default: searched)")
    parser.add_argument("--kv-tile", metavar="SIZE", help="keys of a tile (default: searched)")
    parser.add_argument("--dilation", default="1", metavar="SIZE", help="positions between keys (default: 1)")
    parser.add_argument(
        "--causal", type=int, nargs="+", default=[], metavar="AXIS", help="axes that are causal, from 0"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list with everything counted")
    parser.add_argument(
        "--picture", type=Path, metavar="PNG", help="draw the pattern; after a search, that of the last line"
    )
    options = parser.parse_args(arguments)
    space = _sizes("--input", options.input)
    if options.picture is not None:
        _check_picture(options.picture)
    wrong = [axis for axis in options.causal if not 0 <= axis < len(space)]
    if wrong:
        raise InvalidInput(
            f"--causal names axes from 0 to {len(space) - 1} of {options.input}, got {wrong[0]}"
        )
    window, dilation = (_per_axis(name, getattr(options, name), space) for name in ("window", "dilation"))
    given = {
        name: None if (text := getattr(options, name)) is None else _per_axis(name, text, space)
        for name in ("stride", "q_tile", "kv_tile")
    }
    from qna.analysis.tile_simulator import TILES, search_gna

    if (given["q_tile"] is None or given["kv_tile"] is None) and len(space) not in TILES:
        raise InvalidInput(
            f"tiles are known for 1 to 3 axes, got {options.input}; give --q-tile and --kv-tile"
        )
    causal = tuple(axis in options.causal for axis in range(len(space)))
    with _LateBar() as bar:
        found = search_gna(space, window, dilation=dilation, is_causal=causal, progress=bar.progress, **given)
    if options.json:
        print(json.dumps([simulation.as_dict() for simulation in found], indent=2))
    elif None in given.values():
        _print_front(found)
    else:
        _print_one(found[0])
    if options.picture is not None:
        _draw(options.picture, found[-1])
        print(options.picture, file=sys.stderr if options.json else sys.stdout)
    return 0


def _sizes(name: str, text: str) -> tuple[int, ...]:
    parts = text.split("x")
    if not all(part.isdecimal() and part.isascii() and int(part) > 0 for part in parts):
        raise InvalidInput(f"{name} is written as 30x48x80, in integers of at least 1, got {text!r}")
    return tuple(map(int, parts))


def _per_axis(name: str, text: str, space: tuple[int, ...]) -> tuple[int, ...]:
    option = f"--{name.replace('_', '-')}"
    sizes = _sizes(option, text)
    if len(sizes) not in (1, len(space)):
        raise InvalidInput(f"{option} needs one number, or one for each of {len(space)} axes, got {text!r}")
    return sizes * len(space) if len(sizes) == 1 else sizes


def _check_picture(path: Path) -> None:
    require("matplotlib", extra="train", purpose="`qna simulate-gna --picture`")
    if path.suffix.lower() != ".png":
        raise InvalidInput(f"the picture is a PNG, so --picture must end in .png, got {path}")
    if not path.parent.is_dir():
        raise InvalidInput(f"there is no folder {path.parent} to write {path.name} to")


def _written(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))


def _subject(s: TileSimulation) -> str:
    more = f", dilation {_written(s.dilation)}" if max(s.dilation) > 1 else ""
    if any(s.causal):
        more += ", causal on axis " + " and ".join(str(axis) for axis, is_so in enumerate(s.causal) if is_so)
    return f"map {_written(s.space)}, window {_written(s.window)}{more}"


def _print_one(s: TileSimulation) -> None:
    masked = f"no: {s.visited - s.unmasked:,} visited tiles are partly masked"
    print(_subject(s))
    print(
        f"stride {_written(s.stride)}, tiles of {_written(s.q_tile)} queries and {_written(s.kv_tile)} keys"
    )
    print(f"  visited tiles   {s.visited:,} of {s.dense:,}, at most {s.worst:,} by one tile of queries")
    print(
        f"  speed-up        at most {s.speedup_mean:.2f} in the mean, "
        f"{s.speedup_worst:.2f} for the worst tile"
    )
    print(f"  FLOP bound      {s.flop_bound:.2f}")
    print(f"  block-sparse    {'perfectly' if s.block_sparse else masked}")
    print(f"  window error    {s.window_error:.3f} positions")


def _print_front(found: list[TileSimulation]) -> None:
    print(f"{_subject(found[0])}: FLOP bound {found[0].flop_bound:.2f}")
    head = ("error", "mean", "worst", "block-sparse", "stride", "q tile", "kv tile")
    rows = [
        (
            f"{s.window_error:.3f}",
            f"{s.speedup_mean:.2f}",
            f"{s.speedup_worst:.2f}",
            "perfectly" if s.block_sparse else "no",
            *map(_written, (s.stride, s.q_tile, s.kv_tile)),
        )
        for s in found
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        print("  " + "  ".join(f"{text:>{width}}" for text, width in zip(row, widths, strict=True)))


def _draw(path: Path, s: TileSimulation) -> None:
    from qna.analysis.tile_simulator import patterns
    from qna.plots import plot_tile_pattern

    names = [
        f"axis {axis}: {size} positions, window {k}, stride {stride}\ntiles of {q} queries and {kv} keys"
        for axis, (size, k, stride, q, kv) in enumerate(
            zip(s.space, s.window, s.stride, s.q_tile, s.kv_tile, strict=True)
        )
    ]
    title = f"{_subject(s)}: speed-up at most {s.speedup_mean:.2f}"
    try:
        plot_tile_pattern(path, patterns(s), names, title=title)
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error}") from None


class _LateBar:
    """A bar on a terminal's standard error, from the third second on. Use it as a context."""

    def __init__(self):
        self.began, self.shown, self.width = time.monotonic(), -1, 30

    def __enter__(self) -> _LateBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self.shown >= 0:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()

    def progress(self, done: int, of: int) -> None:
        """Draw it anew where a hundredth is done since."""
        percent = 100 * done // of
        spent = time.monotonic() - self.began
        if percent > self.shown and spent > _PATIENCE and sys.stderr.isatty():
            self.shown = percent
            full = self.width * done // of
            left = spent * (of - done) / done
            bar = "#" * full + "." * (self.width - full)
            sys.stderr.write(f"\rsearching [{bar}] {percent:3d} %, {left:.0f} s left\033[K")
            sys.stderr.flush()
