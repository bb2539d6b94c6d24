"""A model with its configuration in one folder, laid out as timm and the Hugging Face hub read it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from torch import nn

from qna._core.errors import InvalidInput, check_choice
from qna._core.files import write_folder
from qna._core.tensor_file import write_tensors
from qna.models.bounds import bounded_building
from qna.models.card import model_card
from qna.models.resolve import check_model
from qna.models.shared_folder import CONFIG, LOCAL, WEIGHTS, check_folder, read_config, refuse_adapters

CARD = "README.md"
# what timm calls the preparation of images, all of it kept in the configuration
DATA_CONFIG = ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")


def save_pretrained(
    model: nn.Module,
    folder: Path | str,
    *,
    class_names: Sequence[str] | None = None,
    data_config: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    training: str | None = None,
) -> None:
    """Write weights, configuration and a model card to a new folder.

    ``timm.create_model("local-dir:FOLDER", pretrained=True)`` makes the model again, and on the hub
    ``"hf-hub:OWNER/NAME"``, with other classes or channels if it is asked to. The folder appears when all of
    it is written and has been read back to the same weights.

    Args:
        model: made by ``timm.create_model``, of this package or not.
        folder: where to; it must not exist or be empty.
        class_names: of the logits, in their order.
        data_config: how images are prepared for it, in timm's terms (`DATA_CONFIG`, as
            ``timm.data.resolve_model_data_config`` returns them); what is not given is the model's own.
        metrics: for the model card: what a run of `qna train` wrote to metrics.json.
        training: for the model card: the run's configuration as JSON.

    Raises:
        InvalidInput: if the folder holds anything, an argument does not fit the model, timm could not make
            the model again (parts of it were replaced after it was made), or it holds adapters, which
            ``qna.adapters.save_pretrained`` keeps.
        OSError: if it cannot be written; nothing is left then.
    """
    if getattr(model, "qna_adapters", ()):
        raise InvalidInput("the model holds adapters; qna.adapters.save_pretrained keeps them with it")
    write_shared(
        model, folder, class_names=class_names, data_config=data_config, metrics=metrics, training=training
    )


def write_shared(
    model: nn.Module,
    folder: Path | str,
    *,
    class_names: Sequence[str] | None = None,
    data_config: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    training: str | None = None,
    further: Mapping[str, Any] = MappingProxyType({}),
    read: Callable[[Path], nn.Module] | None = None,
) -> None:
    """`save_pretrained`, with `further` entries of config.json, read back by `read`."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInput(f"{folder} is in use; a model is shared in a folder of its own, so name a new one")
    if not getattr(model, "pretrained_cfg", {}).get("architecture"):
        raise InvalidInput(
            f"{type(model).__name__} has no configuration of timm's; make it with timm.create_model"
        )
    for name in data_config or {}:
        check_choice("item of data_config", name, DATA_CONFIG)
    classes = getattr(model, "num_classes", 0)
    if class_names is not None and len(class_names) != classes:
        raise InvalidInput(f"the model has {classes} classes, but there are {len(class_names)} class names")
    named = {} if class_names is None else {"label_names": list(class_names)}

    def write(temporary: Path) -> None:
        # a copy, because weights in channels-last memory cannot be written
        plain = copy.deepcopy(model).cpu().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        try:
            timm.models.save_for_hf(
                plain,
                str(temporary),
                model_config=named,
                data_config=dict(data_config or {}),
                safe_serialization=True,
            )
        except SafetensorError as error:
            raise OSError(str(error)) from error
        except (ValueError, RuntimeError) as error:  # what the configuration or safetensors cannot hold
            raise InvalidInput(f"the model cannot be shared: {' '.join(str(error).split())}") from error
        write_tensors(temporary / WEIGHTS, plain.state_dict(), {"format": "pt"})  # with a digest
        config = json.loads((temporary / CONFIG).read_text(encoding="utf-8"))
        # it stands beside them already, and transformers, which hands both on, would give it twice
        config.get("model_args", {}).pop("num_classes", None)
        config |= further
        (temporary / CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
        _check_read_back(plain, temporary, read or from_pretrained)
        parameters = sum(p.numel() for p in plain.parameters())
        card = model_card(config, parameters=parameters, metrics=metrics, training=training)
        (temporary / CARD).write_text(card, encoding="utf-8")

    write_folder(folder, write)


def from_pretrained(folder: Path | str, **arguments: Any) -> nn.Module:
    """Make the model in `folder` again, in evaluation mode.

    Its ``pretrained_cfg`` has the class names ("label_names") and how images are prepared, which
    ``timm.data.resolve_model_data_config`` reads.

    Args:
        folder: as `save_pretrained` writes it.
        arguments: of ``timm.create_model``, to change something: ``num_classes=5`` brings a new classifier.

    Raises:
        UnknownName: if the model is not known to timm, with the nearest names.
        InvalidInput: if a file is missing, damaged or of another model.
    """
    folder = Path(folder)
    refuse_adapters(folder)
    check_model(read_config(folder).architecture)
    if not (folder / WEIGHTS).is_file():
        raise InvalidInput(f"there is no model in {folder}: {WEIGHTS} is missing")
    check_folder(folder, with_weights=True)
    try:
        with bounded_building():
            return timm.create_model(f"{LOCAL}{folder}", pretrained=True, **arguments).eval()
    except Exception as error:  # what damaged files make of the readers is not listed anywhere
        cause = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise InvalidInput(f"the model in {folder} cannot be made again: {cause}") from error


def _check_read_back(model: nn.Module, folder: Path, read: Callable[[Path], nn.Module]) -> None:
    """Check that `read` makes `model` again from what was written."""
    changed = "was it changed after it was made, by fuse() or another type of numbers?"
    try:
        with torch.random.fork_rng(devices=[]):
            again = read(folder).state_dict()
    except InvalidInput as error:
        cause = " ".join(str(error.__cause__).split())
        raise InvalidInput(
            f"the model cannot be shared: timm does not make it again; {changed} {cause}"
        ) from None
    own = model.state_dict()
    for name in sorted(own.keys() | again.keys()):
        if name not in own or name not in again or not _equal(again[name], own[name]):
            raise InvalidInput(f"the model cannot be shared: {name!r} does not come back as it is; {changed}")


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)
