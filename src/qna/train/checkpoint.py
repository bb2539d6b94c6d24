"""Everything that a run needs to go on, in one safetensors file that is always whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qna._core.errors import InvalidInput
from qna._core.tensor_file import read_tensors, write_tensors
from qna._core.typed_json import from_json_value, parse_json
from qna.parts.protocols import KeepsBeside
from qna.train.fitting import check_fit

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
        images: images, or whatever the task's examples are, in that sum.
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

    def __post_init__(self):
        counts = (self.epoch, self.step - self.step_in_epoch, self.step_in_epoch, self.images, self.seconds)
        if min(counts) < 0 or self.processes < 1 or len(self.history) != self.epoch:
            raise InvalidInput(f"no run can be in epoch {self.epoch}, update {self.step} in this way")


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds beside tensors.

    Attributes:
        progress: how far the run is.
        scaler: state of the gradient scaler of fp16.
        fingerprint: of data and configuration; older checkpoints have none.
    """

    progress: Progress
    scaler: dict[str, Any] | None = None
    fingerprint: dict[str, Any] | None = None


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
    """Write `tensors` and `about` (as JSON in the header) to `path`, whole or not at all.

    Raises:
        OSError: if the disk is full or not writable; what was in `path` is still there.
    """
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    write_tensors(path, contiguous, {"format": "pt", "qna": json.dumps(about)})


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote.

    Raises:
        InvalidInput: if the file is not there, cut short, or not ours.
    """
    try:
        tensors, metadata = read_tensors(path)
        about = parse_json(metadata["qna"], "its header")
        if not isinstance(about, dict):
            raise InvalidInput("its header is not an object")
    except (OSError, KeyError, ValueError) as error:
        raise InvalidInput(f"{path} is not a checkpoint of qna: {type(error).__name__}: {error}") from None
    return tensors, about


def save_checkpoint(
    path: Path,
    *,
    network: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    saved: Saved,
) -> None:
    """Write the state of a run.

    Args:
        path: of the file.
        network: as it is trained; what its modules keep beside it is kept too.
        average: the running average of its weights, if there is one.
        optimizer: its state per parameter is kept; rates follow from the step.
        saved: all else.
    """
    tensors = {f"network/{name}": t for name, t in network.state_dict().items()}
    if average is not None:
        tensors |= {f"average/{name}": t for name, t in average.state_dict().items()}
    for name, module in keepers(network).items():
        tensors |= {f"beside/{name}/{key}": t for key, t in module.beside().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": torch.as_tensor(value) for name, value in state.items()}
    save_tensors(path, tensors, asdict(saved))


def load_checkpoint(
    path: Path,
    *,
    network: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    check: Callable[[Saved], None] = lambda saved: None,
) -> Saved:
    """Put the state of a run back and return what else the checkpoint holds.

    Args:
        path: of the file.
        network: is given its weights.
        average: likewise.
        optimizer: is given its state.
        check: is shown what is returned before anything is put back; it may raise.

    Raises:
        InvalidInput: if the file is not a checkpoint, or of another network.
    """
    tensors, about = load_tensors(path)
    parts: dict[str, dict[str, torch.Tensor]] = {"network": {}, "average": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        parts.setdefault(part, {})[rest] = tensor
    try:
        saved = from_json_value(Saved, about, "its header")
    except (InvalidInput, TypeError) as error:
        raise InvalidInput(f"{path} is not a checkpoint of this run: {error}") from None
    check(saved)
    state: dict[int, dict[str, torch.Tensor]] = {}
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    try:
        for name, tensor in parts["optimizer"].items():
            index, _, key = name.partition("/")
            if not index.isdecimal() or not tensor.is_floating_point():
                raise ValueError(f"{name!r} in the optimizer holds {tensor.dtype}")
            if tensor.ndim and tensor.shape != trained[int(index)].shape:
                raise ValueError(f"the shape of {name!r} in the optimizer is {tuple(tensor.shape)}")
            # a copy: a view into the file would keep its room on the disk when it is replaced
            state.setdefault(int(index), {})[key] = tensor.clone()
        if len({frozenset(of_one) for of_one in state.values()}) > 1:
            raise ValueError("the optimizer lacks a part of its state")
        check_fit(network.state_dict(), parts["network"], "its network")
        if average is not None:
            check_fit(average.state_dict(), parts["average"], "its average")
        network.load_state_dict(parts["network"])
        give_beside(network, parts.get("beside", {}))
        if average is not None:
            average.load_state_dict(parts["average"])
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    except (RuntimeError, KeyError, TypeError, ValueError, IndexError) as error:
        cause = " ".join(str(error).split())
        raise InvalidInput(f"{path} is not a checkpoint of this run: {cause}") from None
    return saved


def keepers(network: nn.Module) -> dict[str, KeepsBeside]:
    """The modules of a network that keep tensors beside it, by their names."""
    return {name: module for name, module in network.named_modules() if isinstance(module, KeepsBeside)}


def give_beside(network: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Give every module what it kept beside the network.

    Args:
        network: has its weights already.
        tensors: by the module's name, "/" and the tensor's.

    Raises:
        KeyError: if there is no such module.
        RuntimeError: if they are another network's.
    """
    kept: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        module, _, key = name.partition("/")
        kept.setdefault(module, {})[key] = tensor
    for name, of_one in kept.items():
        keepers(network)[name].take_beside(network, of_one)


def save_weights(path: Path, network: nn.Module, about: dict[str, Any]) -> None:
    """Write a network's weights with `about` in the header."""
    save_tensors(path, dict(network.state_dict()), about)
