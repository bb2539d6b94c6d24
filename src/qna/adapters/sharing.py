"""Networks and what was put around them, in one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from qna._core.errors import InvalidInput
from qna._core.tensor_file import read_tensors
from qna.adapters.registry import again, told
from qna.models import sharing
from qna.models.bounds import bounded_building, of_file
from qna.models.resolve import check_model
from qna.models.shared_folder import CONFIG, LOCAL, WEIGHTS, check_folder, read_config
from qna.models.timm_entry import timm


def save_pretrained(model: nn.Module, folder: Path | str, **about: Any) -> None:
    """`qna.models.save_pretrained`, for networks that hold adapters and for those that hold none.

    timm alone reads the folder of a network with adapters as the bare network, where it can read it at all;
    `from_pretrained` puts them in again.

    Args:
        model: made by ``timm.create_model``, with or without adapters.
        folder: where to; it must not exist or be empty.
        about: class_names, data_config, metrics and training, as there.

    Raises:
        InvalidInput: as there, but for the adapters.
        OSError: if it cannot be written; nothing is left then.
    """
    held = told(model)
    further = {"qna_adapters": held} if held else {}
    sharing.write_shared(model, folder, **about, further=further, read=from_pretrained)


def from_pretrained(folder: Path | str, **arguments: Any) -> nn.Module:
    """Make the network in a folder again, its adapters among it, in evaluation mode.

    Args:
        folder: as `save_pretrained` writes it.
        arguments: of ``timm.create_model``; with another ``num_classes`` the classifier is new.

    Raises:
        UnknownName: for a model or an adapter that is not known, with the nearest names.
        InvalidInput: if a file is missing, damaged or of another model.
    """
    folder = Path(folder)
    config = read_config(folder)
    if not config.qna_adapters:
        return sharing.from_pretrained(folder, **arguments)
    check_model(config.architecture)
    if not (folder / WEIGHTS).is_file():
        raise InvalidInput(f"there is no model in {folder}: {WEIGHTS} is missing")
    check_folder(folder, with_weights=False)
    try:
        # what the folder asks for is no larger than its weights, seen before anything is allocated
        with of_file((folder / WEIGHTS).stat().st_size), bounded_building(), torch.device("meta"):
            planned = timm.create_model(f"{LOCAL}{folder}", pretrained=False)
            again(planned, config.qna_adapters, str(folder / CONFIG))
        with bounded_building():
            network = timm.create_model(f"{LOCAL}{folder}", pretrained=False, **arguments)
            network = again(network, config.qna_adapters, str(folder / CONFIG))
            tensors, _ = read_tensors(folder / WEIGHTS)
            if getattr(network, "num_classes", None) != config.num_classes:
                tensors |= _classifier(network)
            network.load_state_dict(tensors)
    except Exception as error:  # what damaged files make of the readers is not listed anywhere
        cause = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise InvalidInput(f"the model in {folder} cannot be made again: {cause}") from error
    return network.eval()


def _classifier(network: Any) -> dict[str, Any]:
    """The tensors of a network's classifier, which keep their fresh values where classes are others."""
    named = network.pretrained_cfg.get("classifier") or ()
    heads = tuple(f"{head}." for head in ((named,) if isinstance(named, str) else named))
    return {name: tensor for name, tensor in network.state_dict().items() if name.startswith(heads)}
