"""Everything that a run needs to go on, in one safetensors file that is always whole."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qna._core.errors import InvalidInput, require
from qna._core.files import write_whole

WEIGHTS = "model.safetensors"
CHECKPOINT = "checkpoint.safetensors"
# of a sharded run: names the files that make it up
SHARDED_CHECKPOINT = "checkpoint.json"


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        epoch: complete epochs.
        step: updates made.
        step_in_epoch: of them, in the epoch that is under way.
        loss_sum: training loss summed over the images of the epoch under way, in this process.
        images: images in that sum.
        seconds: time spent so far.
        history: one record per complete epoch.
        processes: that share the work; the order of the images follows from it.
    """

    epoch: int = 0
    step: int = 0
    step_in_epoch: int = 0
    loss_sum: float = 0.0
    images: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    processes: int = 1


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
    """Write `tensors` and `about` (as JSON in the header) to `path`, whole or not at all.

    Raises:
        OSError: if the disk is full or not writable; what was in `path` is still there.
    """
    safetensors = require("safetensors", extra="models", purpose="saving weights")
    torch_format = require("safetensors.torch", extra="models", purpose="saving weights")
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    header = {"format": "pt", "qna": json.dumps(about)}

    def write(temporary: Path) -> None:
        try:
            torch_format.save_file(contiguous, temporary, metadata=header)
        except safetensors.SafetensorError as error:
            raise OSError(f"cannot write {path}: {error}") from error

    write_whole(path, write)


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote.

    Raises:
        InvalidInput: if the file is not there, cut short, or not ours.
    """
    safetensors = require("safetensors", extra="models", purpose="loading weights")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["qna"])
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118 - not a dict
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise InvalidInput(f"{path} is not a checkpoint of qna: {type(error).__name__}: {error}") from None


def save_checkpoint(
    path: Path,
    *,
    network: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    scaler: dict[str, Any] | None,
    progress: Progress,
) -> None:
    """Write the state of a run.

    Args:
        path: of the file.
        network: as it is trained.
        average: the running average of its weights, if there is one.
        optimizer: its state per parameter is kept; rates follow from the step.
        scaler: state of the gradient scaler of fp16.
        progress: how far the run is.
    """
    tensors = {f"network/{name}": t for name, t in network.state_dict().items()}
    if average is not None:
        tensors |= {f"average/{name}": t for name, t in average.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": torch.as_tensor(value) for name, value in state.items()}
    save_tensors(path, tensors, {"progress": asdict(progress), "scaler": scaler})


def load_checkpoint(
    path: Path, *, network: nn.Module, average: nn.Module | None, optimizer: torch.optim.Optimizer
) -> tuple[Progress, dict[str, Any] | None]:
    """Put the state of a run back and return how far it was and the scaler's state.

    Raises:
        InvalidInput: if the file is not a checkpoint, or of another network.
    """
    tensors, about = load_tensors(path)
    parts: dict[str, dict[str, torch.Tensor]] = {"network": {}, "average": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        parts.setdefault(part, {})[rest] = tensor
    try:
        network.load_state_dict(parts["network"])
        if average is not None:
            average.load_state_dict(parts["average"])
        progress = Progress(**about["progress"])
    except (RuntimeError, KeyError, TypeError) as error:
        raise InvalidInput(f"{path} is not a checkpoint of this run: {error}") from None
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in parts["optimizer"].items():
        index, _, key = name.partition("/")
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return progress, about["scaler"]


def save_weights(path: Path, network: nn.Module, about: dict[str, Any]) -> None:
    """Write a network's weights with `about` in the header."""
    save_tensors(path, dict(network.state_dict()), about)


def load_weights(path: Path, network: nn.Module) -> dict[str, Any]:
    """Read weights that `save_weights` wrote into `network`; return what the header says.

    Raises:
        InvalidInput: if the file is not one, or of another network.
    """
    tensors, about = load_tensors(path)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise InvalidInput(f"{path} has the weights of another network: {error}") from None
    return about
