"""`qna explain`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qna._core.errors import InvalidInput, require
from qna._core.outside import as_line
from qna.cli import _classifiers

if TYPE_CHECKING:
    import torch

    from qna.eval import Classifier
    from qna.plots import HeatMap

_DESCRIPTION = """\
Draw what a network looks at in a photo, as one PNG: its answer; attention rollout, which follows the answer
back through all layers; the effective receptive field of the last map's centre; and the attention that each
place receives in the layers of each size. What a network does not have is left out, and the picture says so.
"""
_ANSWERS = 5


def main(arguments: list[str]) -> int:
    """Explain one photo."""
    parser = argparse.ArgumentParser("qna explain", description=_DESCRIPTION)
    parser.add_argument("photo", type=Path, metavar="PHOTO", help="an image file")
    parser.add_argument(
        "--model",
        required=True,
        help=f"{_classifiers.SOURCES}; a name without weights is drawn as it is before training",
    )
    parser.add_argument("--out", type=Path, metavar="PNG", help="default: PHOTO-explained.png, here")
    parser.add_argument(
        "--field",
        choices=("photo", "noise"),
        default="photo",
        help="input of the receptive field: the photo (default), or an average over eight noise images",
    )
    _classifiers.add_options(parser)
    options = parser.parse_args(arguments)
    require("matplotlib", extra="train", purpose="`qna explain`")
    out = options.out or Path(f"{options.photo.stem}-explained.png")
    if out.suffix.lower() != ".png":
        raise InvalidInput(f"the picture is a PNG, so --out must end in .png, got {out}")
    if not out.parent.is_dir():
        raise InvalidInput(f"there is no folder {out.parent} to write {out.name} to")

    device = _classifiers.device(options)
    (classifier,) = _classifiers.load(options, [options.model], untrained=True)
    classifier.network.to(device).eval()
    pixels = _read(options.photo, classifier)
    images = classifier.view.standardise(pixels).to(device)
    from qna.plots import plot_explanation

    trained = bool(classifier.data or options.weights or options.pretrained or ":" in options.model)
    answers = _answers(classifier, images) if trained else []
    maps, layers, notes = _maps(classifier, images, noise=options.field == "noise")
    if not trained:
        notes = [
            "The weights are those before training; --pretrained or --weights FILE give others.",
            *notes,
        ]
    shown = pixels[0].movedim(0, -1).numpy()
    name = classifier.name
    if classifier.architecture not in name:
        name = f"{classifier.architecture} ({name})"
    title = f"What {name} looks at in {options.photo.name}"
    try:
        plot_explanation(out, shown, maps, layers, answers=answers, title=title, notes=notes)
    except OSError as error:
        raise InvalidInput(f"cannot write {out}: {error}") from None
    for name, probability in answers:
        print(f"{100 * probability:5.1f} %  {as_line(name)}")
    for note in notes:
        print(as_line(note))
    print(as_line(str(out)))
    return 0


def _read(photo: Path, classifier: Classifier) -> torch.Tensor:
    """The photo as the network sees it, before it is standardised: (1, C, H, W) in [0, 1]."""
    from qna.eval.predictions import open_files

    images = open_files([str(photo)], classifier.view.channels)
    batch = classifier.view.pixels(images)(images, [0])
    if batch.skipped:
        raise InvalidInput(f"the photo cannot be read: {batch.skipped[0]}")
    return batch.images


def _answers(classifier: Classifier, images: torch.Tensor) -> list[tuple[str, float]]:
    import torch

    from qna.eval.classifier import NO_ANSWER, usable

    with torch.no_grad():
        logits = classifier.network(images)
    if not usable(logits).all():
        raise InvalidInput(f"{classifier.name}: {NO_ANSWER}")
    probabilities = logits[0].float().softmax(0)
    best = probabilities.topk(min(_ANSWERS, len(probabilities)))
    return [
        (classifier.classes[i], p) for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def _maps(
    classifier: Classifier, images: torch.Tensor, *, noise: bool
) -> tuple[list[HeatMap], list[HeatMap], list[str]]:
    """Maps of the whole network, maps of its layers, and what there is to say about them."""
    from qna.analysis import attention_received, attention_rollout
    from qna.plots import HeatMap

    network, notes = classifier.network, []
    maps: list[HeatMap] = []
    received = attention_received(network, images)
    layers = [
        HeatMap(
            f"attention received, {_named(m.layers)} at {m.size[1]} x {m.size[0]}",
            m.received[0].cpu(),
            "share",
        )
        for m in received
    ]
    try:
        rollout = attention_rollout(network, images)
        maps.append(HeatMap("attention rollout", rollout.relevance[0].cpu(), "share"))
    except InvalidInput as error:
        notes.append(f"No attention rollout: {error}.")
    if not received:
        notes.append("No attention maps: no layer shows its attention.")
    else:
        notes.append(
            "Attention received: x1 is what a place gets where every window attends evenly. "
            "Rollout: x1 is an even share of the whole."
        )
    try:
        field, about = _field(network, images, noise=noise)
        maps.append(field)
        notes.append(about)
    except InvalidInput as error:
        notes.append(f"No receptive field: {error}.")
    return maps, layers, notes


def _field(network: Any, images: torch.Tensor, *, noise: bool) -> tuple[HeatMap, str]:
    import torch

    from qna.analysis import receptive_field
    from qna.plots import HeatMap

    inputs = images
    if noise:
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(8, *images.shape[1:], generator=generator).to(images)
    found = receptive_field(network, inputs)
    sides = found.side(0.5), found.side(0.95)
    rows, columns = found.map_size
    on = "noise" if noise else "this photo"
    about = (
        f"Receptive field: derivative of the centre of the last map ({columns} x {rows}) by each pixel "
        f"on {on}, relative to its maximum. Squares of {sides[0]} and {sides[1]} pixels a side hold 50 "
        "and 95 % of it."
    )
    heat = HeatMap("effective receptive field", found.strength, "strength", sides, found.centre)
    return heat, about


def _named(layers: tuple[str, ...]) -> str:
    return "1 layer" if len(layers) == 1 else f"{len(layers)} layers"
