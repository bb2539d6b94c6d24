"""The options of every command that takes trained networks, and the networks that they name."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qna._core.errors import InvalidInput

if TYPE_CHECKING:
    import torch

    from qna.eval import Classifier

SOURCES = (
    "folder of a run of `qna train`, its model.safetensors, or a name that timm knows (with --pretrained "
    "or --weights)"
)

# more than any machine has cores; beyond, torch ends when it starts them
_MOST_THREADS = 2**10


def whole(text: str) -> int:
    """A whole number of 32 bits, for argparse: beyond that nothing can be meant."""
    number = int(text)
    if not -(2**31) <= number < 2**31:
        raise ValueError
    return number


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which weights, how images are seen, and where to compute."""
    add_network_options(parser)
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="default auto")
    parser.add_argument("--threads", type=whole, default=0, metavar="N", help="0: as many as torch takes")


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which weights, and how images are seen."""
    parser.add_argument(
        "--weights",
        action="append",
        type=Path,
        metavar="FILE",
        default=[],
        help="weights of a timm name; once for each timm name, in their order",
    )
    parser.add_argument(
        "--pretrained", action="store_true", help="the weights that timm knows, for every timm name"
    )
    parser.add_argument("--image-size", type=whole, metavar="PIXELS", help="instead of the network's own")
    parser.add_argument(
        "--crop-pct", type=float, metavar="PART", help="of a photo's shorter side that is kept"
    )
    parser.add_argument("--mean", type=float, nargs="+", metavar="M", help="per channel, instead of its own")
    parser.add_argument("--std", type=float, nargs="+", metavar="S", help="per channel, instead of its own")


def load(
    options: argparse.Namespace,
    sources: Sequence[str],
    *,
    channels: int | None = None,
    untrained: bool = False,
) -> list[Classifier]:
    """The networks that `sources` and the options name, in order; no two are called the same.

    Raises:
        InvalidInput: if one cannot be had, or there are not as many --weights as timm names.
    """
    from qna.train.reload import ViewOptions, is_timm_name, load_classifier

    names = [source for source in sources if is_timm_name(source)]
    if options.weights and len(options.weights) != len(names):
        raise InvalidInput(
            f"--weights belongs to a timm's name, once for each: got {len(options.weights)} for "
            f"{len(names)} ({', '.join(names) or 'none'})"
        )
    files = iter(options.weights)
    view = ViewOptions(
        options.image_size,
        options.crop_pct,
        None if options.mean is None else tuple(options.mean),
        None if options.std is None else tuple(options.std),
    )
    found: list[Classifier] = []
    for source in sources:
        timms = is_timm_name(source)
        loaded = load_classifier(
            source,
            weights=next(files, None) if timms else None,
            pretrained=options.pretrained and timms,
            channels=channels,
            untrained=untrained,
            view=view,
        )
        if loaded.name in [other.name for other in found]:
            raise InvalidInput(f"{loaded.name} is named twice")
        found.append(loaded)
    if options.pretrained and not names:
        raise InvalidInput("--pretrained belongs to timm's names, and none is given")
    return found


def device(options: argparse.Namespace) -> torch.device:
    """Where to compute: the first accelerator, or the CPU; torch's threads are set as asked."""
    import torch

    if not 0 <= options.threads <= _MOST_THREADS:
        raise InvalidInput(f"--threads must be from 0 to {_MOST_THREADS:,}, got {options.threads}")
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
    return torch.device("cpu")
