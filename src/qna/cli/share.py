"""`qna share`."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qna._core.errors import InvalidInput
from qna._core.outside import as_line
from qna._core.typed_json import from_json_value, known_fields, read_json

if TYPE_CHECKING:
    from qna.train import TrainConfig

_DESCRIPTION = """\
Put the model of a complete run in a folder that others can use: weights, configuration with class names and
preparation of images, and a model card with what the run measured. timm reads the folder, and so does the
Hugging Face hub.
"""


def main(arguments: list[str]) -> int:
    """Write the folder."""
    parser = argparse.ArgumentParser("qna share", description=_DESCRIPTION)
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a run of `qna train`")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a new one")
    options = parser.parse_args(arguments)
    from qna.adapters import save_pretrained
    from qna.train import TrainConfig
    from qna.train.folder import CONFIG, METRICS
    from qna.train.reload import load_classifier

    run, out = options.run, options.out
    metrics = _read_metrics(run, METRICS)
    classifier = load_classifier(str(run))
    config = TrainConfig.from_file(run / CONFIG)
    view = classifier.view
    try:
        save_pretrained(
            classifier.network,
            out,
            class_names=classifier.classes,
            data_config={
                "input_size": (view.channels, view.size, view.size),
                "interpolation": view.interpolation,
                "mean": view.mean,
                "std": view.std,
                "crop_pct": view.crop_pct,
            },
            metrics={**metrics, "data": _public(metrics["data"])},
            training=_without_places(config).to_json(),
        )
    except OSError as error:
        raise InvalidInput(f"cannot write {out}: {error.strerror or error}") from None
    right = f"{metrics['top1']:.2%} of {metrics['held_out']:,} held-out images right"
    print(as_line(f"{out}: {metrics['model']}, {right}"))
    print(as_line(f'timm.create_model("local-dir:{out}", pretrained=True)  # after import qna.models'))
    return 0


@dataclass(frozen=True)
class CardMetrics:
    """What a model card says of a run, as metrics.json has it."""

    model: str
    data: str
    trained_on: int
    held_out: int
    unreadable: int
    right: int
    top1: float
    top5: float
    loss: float
    epochs: int
    seconds: float
    device: str
    torch: str


def _read_metrics(run: Path, name: str) -> dict[str, Any]:
    try:
        known = known_fields(CardMetrics, read_json(run / name), "it")
        return asdict(from_json_value(CardMetrics, known, "it"))
    except (OSError, InvalidInput) as error:
        cause = getattr(error, "strerror", None) or error
        raise InvalidInput(f"{run} is not the folder of a complete run: {name}: {cause}") from None


def _without_places(config: TrainConfig) -> TrainConfig:
    """The configuration without the folders of the machine that it ran on."""
    weights = config.network.weights
    return replace(
        config,
        images=replace(config.images, data=_public(config.images.data), data_dir=None),
        network=replace(config.network, weights=None if weights is None else Path(weights.name)),
        run=replace(config.run, out=None),
    )


def _public(data: str) -> str:
    """What a data set is called elsewhere: a folder is called by its last name."""
    from qna.data import DATA

    return data if data in DATA or data.startswith("hfds/") else Path(data).name
