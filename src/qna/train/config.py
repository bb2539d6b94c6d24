"""What a training run is told: frozen dataclasses, to and from JSON, every field a command-line option."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qna._core.errors import InvalidInput
from qna._core.typed_json import from_json_value


@dataclass(frozen=True)
class ImageOptions:
    """Which images.

    Attributes:
        data: name of a data set.
        data_dir: where its files are; None for the usual places.
        image_size: side of the square that the network reads, in pixels.
        workers: processes that prepare images; 0 prepares them in the training process.
    """

    data: str = "digits"
    data_dir: Path | None = None
    image_size: int = 32
    workers: int = 0


@dataclass(frozen=True)
class NetworkOptions:
    """Which network.

    Attributes:
        model: any name that timm.create_model knows.
        drop_path: probability that a residual branch of the last block is left out, falling linearly to 0
            at the first; None for the model's own.
    """

    model: str = "qna_vit_tiny"
    drop_path: float | None = None


@dataclass(frozen=True)
class AugmentOptions:
    """How training images vary.

    Attributes:
        rotate: largest angle, in degrees.
        shift: largest displacement along each axis, as a part of the side.
        zoom: largest relative change of size.
        flip: mirror half of the images left to right.
        smoothing: part of the target that is spread over all classes.
    """

    rotate: float = 0.0
    shift: float = 0.0
    zoom: float = 0.0
    flip: bool = False
    smoothing: float = 0.1


@dataclass(frozen=True)
class OptimOptions:
    """How the network learns: AdamW, linear warm-up, cosine to 0.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per process and step.
        lr: highest learning rate per 256 images of a step; scaled linearly with the images of a step.
        warmup_epochs: epochs in which the rate rises linearly from 0.
        weight_decay: of everything but position tables, query weights and what the model names.
        ema: decay of the running average of the weights that is evaluated and kept; 0 for none.
    """

    epochs: int = 300
    batch_size: int = 128
    lr: float = 5e-4
    warmup_epochs: float = 5
    weight_decay: float = 0.05
    ema: float = 0.0


@dataclass(frozen=True)
class RunOptions:
    """Where and how exactly it runs.

    Attributes:
        out: folder for the results, numbered anew if it holds some already; None for runs/DATA-MODEL.
        seed: of all random draws; equal seeds give equal runs on one machine.
        device: where to compute; auto takes the first accelerator.
        threads: for computing on the CPU; 0 for as many as torch takes. Results differ by rounding.
        precision: of the forward pass; the weights stay in float32.
    """

    out: Path | None = None
    seed: int = 0
    device: Literal["auto", "cpu"] = "auto"
    threads: int = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"


@dataclass(frozen=True)
class TrainConfig:
    """Everything that a training run is told."""

    images: ImageOptions = ImageOptions()
    network: NetworkOptions = NetworkOptions()
    augment: AugmentOptions = AugmentOptions()
    optim: OptimOptions = OptimOptions()
    run: RunOptions = RunOptions()

    def __post_init__(self):
        for name, value, low in [
            ("epochs", self.optim.epochs, 1),
            ("batch_size", self.optim.batch_size, 1),
            ("image_size", self.images.image_size, 1),
            ("workers", self.images.workers, 0),
            ("threads", self.run.threads, 0),
            ("warmup_epochs", self.optim.warmup_epochs, 0),
            ("lr", self.optim.lr, 0),
            ("weight_decay", self.optim.weight_decay, 0),
        ]:
            if not value >= low:
                raise InvalidInput(f"{name} must be at least {low}, got {value}")
        for name, value in [("ema", self.optim.ema), ("smoothing", self.augment.smoothing)]:
            if not 0 <= value < 1:
                raise InvalidInput(f"{name} must be in [0, 1), got {value}")

    def to_json(self) -> str:
        """The configuration as JSON that `from_json` reads back."""
        return json.dumps(dataclasses.asdict(self), indent=2, default=str) + "\n"

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """Read a configuration; fields that are not there take their defaults.

        Raises:
            InvalidInput: if it is not JSON, or a value does not fit its field's type.
            UnknownName: for a field that does not exist, with the nearest names.
        """
        try:
            raw = json.loads(text)
        except json.JSONDecodeError as error:
            raise InvalidInput(f"the configuration is not JSON: {error}") from None
        return from_json_value(cls, raw, "the configuration")

    @classmethod
    def from_file(cls, path: Path) -> TrainConfig:
        """Read a configuration from a JSON file."""
        try:
            return cls.from_json(path.read_text())
        except OSError as error:
            raise InvalidInput(f"cannot read the configuration {path}: {error.strerror}") from None
