"""`qna export`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qna._core.errors import InvalidInput, require
from qna._core.outside import as_line
from qna.cli import _classifiers

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

_DESCRIPTION = """\
Write a trained network that classifies or segments as a file that runs without this package: ONNX, or an
archive of torch.export. Batch, height and width stay open. The file is tried beside the network before it is
kept, and tells class names and how images are prepared.
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

    network, told = _network(parser, options)
    shape, sizes = _sizes(given, len(told["mean"]), told["image_size"], fixed=options.fixed_size)
    metadata = {name: json.dumps(value) for name, value in told.items()}
    try:
        with _steps() as progress:
            if form == ".onnx":
                exported = export_onnx(
                    network,
                    options.to,
                    shape,
                    inputs=["images"],
                    outputs=["logits"],
                    sizes=sizes,
                    int8=options.int8,
                    metadata=metadata,
                    progress=progress,
                )
            else:
                exported = export_program(
                    network, options.to, shape, sizes=sizes, metadata=metadata, progress=progress
                )
    except OSError as error:
        raise InvalidInput(f"cannot write {options.to}: {error.strerror or error}") from None
    print(as_line(str(exported)))
    return 0


def _network(
    parser: argparse.ArgumentParser, options: argparse.Namespace
) -> tuple[nn.Module, dict[str, Any]]:
    """The network, and what its file tells of it."""
    from qna.train.reload import task_of

    task = task_of(options.model)
    if task == "segmentation":
        return _segmenter(parser, options)
    if task != "classification":
        raise InvalidInput(
            f"{options.model} is a run of {task}, and `qna export` writes networks that classify or segment"
        )
    (classifier,) = _classifiers.load(options, [options.model])
    view = classifier.view
    return classifier.network, {
        "task": "classification",
        "model": classifier.architecture,
        "classes": classifier.classes,
        "image_size": view.size,
        "mean": view.mean,
        "std": view.std,
        "crop_pct": view.crop_pct,
        "interpolation": view.interpolation,
    }


def _segmenter(
    parser: argparse.ArgumentParser, options: argparse.Namespace
) -> tuple[nn.Module, dict[str, Any]]:
    from qna.cli._answers import OF_CLASSIFIERS, refuse
    from qna.train.reload_segmenter import load_segmenter

    refuse(parser, options, OF_CLASSIFIERS, "segments")
    segmenter = load_segmenter(options.model, image_size=options.image_size)
    return segmenter.network, {
        "task": "segmentation",
        "model": segmenter.architecture,
        "classes": segmenter.classes,
        "palette": segmenter.palette,
        "image_size": segmenter.size,
        "mean": segmenter.mean,
        "std": segmenter.std,
    }


def _parsed(text: str) -> tuple[int, int]:
    """Height and width of "160x320"."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(p.isascii() and p.isdigit() and int(p) for p in parts):
        raise InvalidInput(f"--sizes are heights and widths as 160x320, got {text!r}")
    return int(parts[0]), int(parts[1])


def _sizes(
    given: list[tuple[int, int]], channels: int, size: int, *, fixed: bool
) -> tuple[tuple[int | str, ...], list[dict[str, int]]]:
    """The shape of images, and the open sizes to try: every one alone and as a batch in turn."""
    if fixed:
        return ("batch", channels, size, size), [{"batch": 1}, {"batch": 3}]
    sizes = [
        {"batch": 1 + 2 * (number % 2), "height": height, "width": width}
        for number, (height, width) in enumerate(given or [(size, size), (37, 53), (64, 41)])
    ]
    return ("batch", channels, "height", "width"), sizes


@contextmanager
def _steps() -> Iterator[Callable[[str], object]]:
    """What is done, on a terminal beside a sign that it goes on, elsewhere a line each."""
    console = require("rich.console", extra="train", purpose="`qna export`").Console(stderr=True)
    if not console.is_terminal:
        yield lambda step: console.print(step, markup=False, highlight=False)
        return
    with console.status("") as status:
        yield status.update
