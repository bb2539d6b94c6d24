"""`qna export`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from qna._core.errors import InvalidInput, require
from qna._core.outside import as_line
from qna.cli import _classifiers

if TYPE_CHECKING:
    from collections.abc import Callable

    from qna.eval import Classifier

_DESCRIPTION = """\
Write a trained network as a file that runs without this package: ONNX, or an archive of torch.export. Batch,
height and width stay open. The file is tried beside the network before it is kept, and tells class names and
how images are prepared.
"""
_FORMS = (".onnx", ".pt2")


def main(arguments: list[str]) -> int:
    """Write one network."""
    parser = argparse.ArgumentParser("qna export", description=_DESCRIPTION)
    parser.add_argument("model", metavar="MODEL", help=_classifiers.SOURCES)
    parser.add_argument(
        "--to",
        type=Path,
        required=True,
        metavar="FILE",
        help="ends in .onnx, or in .pt2 for torch.export (import qna before torch.export.load)",
    )
    parser.add_argument(
        "--int8", action="store_true", help="ONNX with linear maps in 8 bits: smaller, a little less exact"
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        metavar="HxW",
        help="images to try the file with, for example 224x224 160x320 (default: the network's own size, and "
        "two that are no squares)",
    )
    parser.add_argument(
        "--fixed-size", action="store_true", help="leave the batch open alone, for networks of one size"
    )
    _classifiers.add_network_options(parser)
    options = parser.parse_args(arguments)
    form = options.to.suffix.lower()
    if form not in _FORMS:
        raise InvalidInput(
            f"--to must end in {' or '.join(_FORMS)}, which says what is written, got {options.to}"
        )
    if options.int8 and form != ".onnx":
        raise InvalidInput(f"--int8 belongs to ONNX: name a file that ends in .onnx, got {options.to}")
    if options.fixed_size and options.sizes:
        raise InvalidInput("--sizes are of networks that take any, and --fixed-size leaves them one")
    if not options.to.parent.is_dir():
        raise InvalidInput(f"there is no folder {options.to.parent} to write {options.to.name} to")
    given = [_parsed(text) for text in options.sizes or ()]
    from qna.export import export_onnx, export_program

    (classifier,) = _classifiers.load(options, [options.model])
    shape, sizes = _sizes(given, classifier, fixed=options.fixed_size)
    told = _metadata(classifier)
    try:
        with _steps() as progress:
            if form == ".onnx":
                exported = export_onnx(
                    classifier.network,
                    options.to,
                    shape,
                    inputs=["images"],
                    outputs=["logits"],
                    sizes=sizes,
                    int8=options.int8,
                    metadata=told,
                    progress=progress,
                )
            else:
                exported = export_program(
                    classifier.network, options.to, shape, sizes=sizes, metadata=told, progress=progress
                )
    except OSError as error:
        raise InvalidInput(f"cannot write {options.to}: {error}") from None
    print(as_line(str(exported)))
    return 0


def _parsed(text: str) -> tuple[int, int]:
    """Height and width of "160x320"."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(p.isascii() and p.isdigit() and int(p) for p in parts):
        raise InvalidInput(f"--sizes are heights and widths as 160x320, got {text!r}")
    return int(parts[0]), int(parts[1])


def _sizes(
    given: list[tuple[int, int]], classifier: Classifier, *, fixed: bool
) -> tuple[tuple[int | str, ...], list[dict[str, int]]]:
    """The shape of images, and the open sizes to try: every one alone and as a batch in turn."""
    view = classifier.view
    if fixed:
        return ("batch", view.channels, view.size, view.size), [{"batch": 1}, {"batch": 3}]
    sizes = [
        {"batch": 1 + 2 * (number % 2), "height": height, "width": width}
        for number, (height, width) in enumerate(given or [(view.size, view.size), (37, 53), (64, 41)])
    ]
    return ("batch", view.channels, "height", "width"), sizes


def _metadata(classifier: Classifier) -> dict[str, str]:
    """What a file tells of the network, each value as JSON."""
    view = classifier.view
    told = {
        "model": classifier.architecture,
        "classes": classifier.classes,
        "image_size": view.size,
        "mean": view.mean,
        "std": view.std,
        "crop_pct": view.crop_pct,
        "interpolation": view.interpolation,
    }
    return {name: json.dumps(value) for name, value in told.items()}


@contextmanager
def _steps() -> Iterator[Callable[[str], object]]:
    """What is done, on a terminal beside a sign that it goes on, elsewhere a line each."""
    console = require("rich.console", extra="train", purpose="`qna export`").Console(stderr=True)
    if not console.is_terminal:
        yield lambda step: console.print(step, markup=False, highlight=False)
        return
    with console.status("") as status:
        yield status.update
