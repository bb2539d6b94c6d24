"""`qna data`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import MISSING, fields
from pathlib import Path

_DESCRIPTION = """\
Compose scenes of stamps with known outlines on photographs: images, a mask of classes for each, and boxes
in COCO's format, to train and to judge segmentation and detection on. Without folders of your own the stamps
are those of Debian's package tuxpaint-stamps-default (GPL-2: do not redistribute the scenes under other
terms) and the photographs those in scikit-image's wheel.
"""


def main(arguments: list[str]) -> int:
    """Compose a data set."""
    from qna.data.scenes import SceneOptions, write_scenes

    parser = argparse.ArgumentParser("qna data", description="Make data sets.")
    kinds = parser.add_subparsers(metavar="KIND", required=True)
    stamps = kinds.add_parser("stamps", help="scenes of stamps on photographs", description=_DESCRIPTION)
    plain = {field.name: field.default for field in fields(SceneOptions) if field.default is not MISSING}
    stamps.add_argument("--out", type=Path, default=Path("data/stamps"), help="default data/stamps")
    for name, text in (
        ("images", "scenes to train on"),
        ("held_out", "scenes to judge on, of other stamps and photographs"),
        ("size", "side of a scene, in pixels"),
        ("objects", "most stamps on a scene"),
        ("seed", "of all draws"),
    ):
        option = f"--{name.replace('_', '-')}"
        stamps.add_argument(
            option, type=int, default=plain[name], metavar="N", help=f"{text} (default {plain[name]})"
        )
    stamps.add_argument("--stamps", type=Path, metavar="DIR", help="a folder of PNG files per class")
    stamps.add_argument("--photos", type=Path, metavar="DIR", help="a folder of photographs")
    stamps.add_argument(
        "--classes", nargs="+", default=(), metavar="NAME", help="the folders of stamps to take"
    )
    options = vars(parser.parse_args(arguments))
    out = options.pop("out")
    chosen = SceneOptions(**{**options, "classes": tuple(options["classes"])})
    write_scenes(out, chosen, _Ticks(chosen.images + chosen.held_out))
    print(f"{chosen.images:,} scenes to train on and {chosen.held_out:,} held out are in {out}")
    return 0


class _Ticks:
    """Tells a terminal how far the work is."""

    def __init__(self, total: int):
        self.total, self.done = total, 0

    def __call__(self) -> None:
        self.done += 1
        if sys.stderr.isatty() and (self.done % 20 == 0 or self.done == self.total):
            print(f"\r{self.done:,} of {self.total:,} scenes", end="", file=sys.stderr)
            if self.done == self.total:
                print(file=sys.stderr)
