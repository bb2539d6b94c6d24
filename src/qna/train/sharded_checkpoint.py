"""The checkpoint of a sharded run: each process writes its part, and one small file says which parts count.

Parts are written to a folder beside those of the checkpoint before. ``checkpoint.json`` names the folder, and
replacing that file, after every part is on the disk, is what makes a checkpoint current: a process that is
killed earlier leaves the one before as it was.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from qna._core.errors import InvalidInput, check_choice
from qna._core.files import sync_folder, write_text
from qna.train.checkpoint import Progress
from qna.train.setup import from_main_process

# the parts of the current checkpoint are in one of them, those of the next are written to the other
FOLDERS = ("shards-0", "shards-1")


def save_sharded(
    path: Path,
    *,
    network: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    """Write the state of a sharded run; all processes must call it together.

    Args:
        path: of the small file; the parts go to a folder beside it.
        network: as it is trained.
        average: the running average of its weights, if there is one.
        optimizer: its state per parameter is kept.
        progress: how far the run is.

    Raises:
        OSError: in every process, if any cannot write; the checkpoint before is still current.
    """
    name = _by_first(lambda: _empty_folder(path))
    folder = path.with_name(name)
    try:
        writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
        save(_state(network, average, optimizer), storage_writer=writer)
    except CheckpointException as error:
        raise _cause(error) from error

    def make_current() -> None:
        sync_folder(folder)
        files = {part.name: part.stat().st_size for part in sorted(folder.iterdir())}
        pointer = {"folder": name, "files": files, "progress": asdict(progress)}
        write_text(path, json.dumps(pointer, indent=2) + "\n")
        _remove(path.with_name(_other(name)))

    _by_first(make_current)


def load_sharded(
    path: Path, *, network: nn.Module, average: nn.Module | None, optimizer: torch.optim.Optimizer
) -> Progress:
    """Put the state of a sharded run back and return how far it was; all processes must call it together.

    Raises:
        InvalidInput: if the file is not a checkpoint, a part is missing or cut short, or it is of another
            network.
    """
    pointer = _read_pointer(path)
    reader = HuggingFaceStorageReader(str(path.with_name(pointer["folder"])))
    saved = _saved(reader)
    for name, parameter in network.named_parameters():
        prefix = f"optimizer/{name}/"
        for key in [k for k in saved if k.startswith(prefix)]:
            is_sharded = saved[key].size == parameter.shape  # the count of updates is not
            empty = torch.zeros_like(parameter) if is_sharded else torch.zeros(saved[key].size)
            optimizer.state[parameter][key.removeprefix(prefix)] = empty
    state = _state(network, average, optimizer)
    if state.keys() != saved.keys():
        name = min(state.keys() ^ saved.keys())
        raise InvalidInput(f"{path} is not a checkpoint of this run: {name!r} is only in one of the two")
    try:
        load(state, storage_reader=reader)
    except CheckpointException as error:
        raise InvalidInput(f"{path} is not a checkpoint of this run: {_cause(error)}") from None
    return pointer["progress"]


def read_shards(path: Path) -> dict[str, Tensor]:
    """All tensors of a sharded checkpoint, whole, in one process.

    Raises:
        InvalidInput: if the file is not a checkpoint, or a part is missing or cut short.
    """
    reader = HuggingFaceStorageReader(str(path.with_name(_read_pointer(path)["folder"])))
    saved = _saved(reader)
    tensors = {name: torch.empty(about.size, dtype=about.properties.dtype) for name, about in saved.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # says that this is one process
        load(tensors, storage_reader=reader, no_dist=True)
    return tensors


def _state(
    network: nn.Module, average: nn.Module | None, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Every tensor of a run by name; loading writes into them."""
    state = {f"network/{name}": tensor for name, tensor in network.state_dict().items()}
    if average is not None:
        state |= {f"average/{name}": tensor for name, tensor in average.state_dict().items()}
    for name, parameter in network.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            state[f"optimizer/{name}/{key}"] = value
    return state


def _saved(reader: HuggingFaceStorageReader) -> dict[str, TensorStorageMetadata]:
    """Shape and type of every tensor, whole."""
    about = reader.read_metadata().state_dict_metadata
    return {name: tensor for name, tensor in about.items() if isinstance(tensor, TensorStorageMetadata)}


def _read_pointer(path: Path) -> dict[str, Any]:
    try:
        pointer = json.loads(path.read_text(encoding="utf-8"))
        pointer["progress"] = Progress(**pointer["progress"])
        check_choice("folder of shards", pointer["folder"], FOLDERS)
        for name, size in pointer["files"].items():
            part = path.with_name(pointer["folder"]) / name
            if part.stat().st_size != size:
                raise OSError(f"{part} has {part.stat().st_size} bytes instead of {size}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(f"{path} is not a checkpoint of qna: {type(error).__name__}: {error}") from None
    return pointer


def _by_first(act: Callable[[], Any]) -> Any:
    """What `act` returns in the first process, which alone calls it, in all of them; or its error in all."""
    result: Any = None
    if torch.distributed.get_rank() == 0:
        try:
            result = act()
        except (OSError, InvalidInput) as error:
            result = error
    result = from_main_process(result)
    if isinstance(result, Exception):
        raise result
    return result


def _cause(error: CheckpointException) -> BaseException:
    """What went wrong in the first process in which something did."""
    return next(iter(error.failures.values()))[0]


def _empty_folder(path: Path) -> str:
    """The folder that the current checkpoint does not need, emptied of what a killed process left there."""
    current = _read_pointer(path)["folder"] if path.exists() else FOLDERS[1]
    name = _other(current)
    _remove(path.with_name(name))
    path.with_name(name).mkdir()
    return name


def _other(name: str) -> str:
    return FOLDERS[1 - FOLDERS.index(name)]


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
