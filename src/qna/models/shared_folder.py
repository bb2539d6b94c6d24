"""A folder that timm reads a model from: what its configuration may say, and what that may ask for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from qna._core.errors import InvalidInput
from qna._core.typed_json import from_json_value, known_fields, read_json
from qna.models.bounds import bounded_building, check_arguments, of_file
from qna.models.timm_entry import timm

# what timm calls such a folder by
LOCAL = "local-dir:"

CONFIG = "config.json"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Prepared:
    """How images are prepared, in timm's terms; None is the architecture's own."""

    input_size: tuple[int, int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop_pct: float | None = None
    interpolation: str | None = None
    num_classes: int | None = None


@dataclass(frozen=True)
class SharedConfig:
    """What is asked of the configuration in a shared folder; timm and others may keep more in it.

    Attributes:
        architecture: timm's name of the model.
        num_classes: logits.
        label_names: of the logits.
        model_args: arguments of the model.
        pretrained_cfg: how images are prepared.
        qna_adapters: what is put around the model, in order, each with its name and arguments.
    """

    architecture: str
    num_classes: int | None = None
    label_names: list[str] | None = None
    model_args: dict[str, Any] | None = None
    pretrained_cfg: Prepared | None = None
    qna_adapters: list[dict[str, Any]] | None = None


def read_config(folder: Path) -> SharedConfig:
    """The configuration in a folder that timm can read.

    Raises:
        InvalidInput: if it is not there, is not one of timm's (a run's, for example), or a value has another
            type.
    """
    path = folder / CONFIG
    try:
        raw = known_fields(SharedConfig, read_json(path), "it")
        if not isinstance(raw.get("architecture"), str):
            raise InvalidInput("it names no architecture")
        if isinstance(prepared := raw.get("pretrained_cfg"), dict):
            raw["pretrained_cfg"] = known_fields(Prepared, prepared, "pretrained_cfg")
        return from_json_value(SharedConfig, raw, str(path))
    except OSError as error:
        raise InvalidInput(f"there is no model in {folder}: {CONFIG}: {error.strerror}") from None
    except InvalidInput as error:
        what = f"{path} is not a model's configuration as timm writes it: {error}"
        if (folder / "metrics.json").is_file():
            what += f"; {folder} is a run of `qna train`, which `qna share` makes such a folder of"
        raise InvalidInput(what) from None


def refuse_adapters(folder: Path) -> None:
    """Raise `InvalidInput` for a model that holds adapters, which timm would leave out."""
    if read_config(folder).qna_adapters:
        raise InvalidInput(f"the model in {folder} holds adapters; qna.adapters.from_pretrained reads it")


def check_folder(folder: Path, *, with_weights: bool) -> None:
    """Check the configuration in a folder that timm reads, before it makes a model of it.

    Raises:
        InvalidInput: if a value is not of its type or too large, or asks for more than the weights beside it.
    """
    config = read_config(folder)
    check_arguments(config.architecture, config.model_args or {})
    if not with_weights or not (folder / WEIGHTS).is_file():
        return
    try:
        with of_file((folder / WEIGHTS).stat().st_size), bounded_building(), torch.device("meta"):
            timm.create_model(f"{LOCAL}{folder}")
    except InvalidInput as error:
        raise InvalidInput(f"the model in {folder} cannot be made again: {error}") from None
    except Exception:  # some read numbers while they are built, and what else is wrong is told in earnest
        return
