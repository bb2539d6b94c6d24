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
from dataclasses import asdict, dataclass, field
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
from qna._core.files import sha256_of, sync_folder, write_text
from qna._core.tensor_file import check_header
from qna._core.typed_json import from_json_value, known_fields, read_json
from qna.train.checkpoint import Saved
from qna.train.setup import from_main_process

# the parts of the current checkpoint are in one of them, those of the next are written to the other
FOLDERS = ("shards-0", "shards-1")


@dataclass(frozen=True)
class Pointer:
    """Which parts count.

    Attributes:
        folder: of the parts.
        files: bytes of each by name.
        sha256: of each by name; older checkpoints have none.
    """

    folder: str
    files: dict[str, int]
    sha256: dict[str, str] = field(default_factory=dict)


def save_sharded(
    path: Path,
    *,
    network: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    saved: Saved,
) -> None:
    """Write the state of a sharded run; all processes must call it together.

    Args:
        path: of the small file; the parts go to a folder beside it.
        network: as it is trained.
        average: the running average of its weights, if there is one.
        optimizer: its state per parameter is kept.
        saved: all else.

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
        parts = sorted(folder.iterdir())
        files = {part.name: part.stat().st_size for part in parts}
        about = {name: value for name, value in asdict(saved).items() if name != "scaler"}
        pointer = {"folder": name, "files": files, "sha256": {p.name: _digest(p) for p in parts}, **about}
        write_text(path, json.dumps(pointer, indent=2) + "\n")
        _remove(path.with_name(_other(name)))

    _by_first(make_current)


def load_sharded(
    path: Path,
    *,
    network: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    check: Callable[[Saved], None] = lambda saved: None,
) -> Saved:
    """Put the state of a sharded run back, as `load_checkpoint`; all processes must call it together.

    Raises:
        InvalidInput: if the file is not a checkpoint, a part is missing or cut short, or it is of another
            network.
    """
    pointer, about = _read_pointer(path)
    check(about)
    _by_first(lambda: _check_digests(path, pointer))
    reader = HuggingFaceStorageReader(str(path.with_name(pointer.folder)))
    saved = _saved(reader, pointer)
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
    return about


def read_shards(path: Path) -> dict[str, Tensor]:
    """All tensors of a sharded checkpoint, whole, in one process.

    Raises:
        InvalidInput: if the file is not a checkpoint, or a part is missing or cut short.
    """
    pointer, _ = _read_pointer(path)
    _check_digests(path, pointer)
    reader = HuggingFaceStorageReader(str(path.with_name(pointer.folder)))
    saved = _saved(reader, pointer)
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


def _saved(reader: HuggingFaceStorageReader, pointer: Pointer) -> dict[str, TensorStorageMetadata]:
    """Shape and type of every tensor, whole.

    Raises:
        InvalidInput: if the files cannot hold as much; nothing is allocated then.
    """
    try:
        about = reader.read_metadata().state_dict_metadata
    except Exception as error:  # what a damaged header makes of torch's reader is not listed anywhere
        cause = " ".join(str(error).split())
        raise InvalidInput(f"{pointer.folder} is damaged: {type(error).__name__}: {cause}") from None
    saved = {name: tensor for name, tensor in about.items() if isinstance(tensor, TensorStorageMetadata)}
    told = sum(tensor.size.numel() * tensor.properties.dtype.itemsize for tensor in saved.values())
    if told > sum(pointer.files.values()):
        raise InvalidInput(f"{pointer.folder} is damaged: its headers tell of {told:,} bytes of tensors")
    return saved


def _read_pointer(path: Path) -> tuple[Pointer, Saved]:
    try:
        raw = read_json(path)
        told = known_fields(Pointer, raw, "it")
        pointer = from_json_value(Pointer, told, "it")
        saved = from_json_value(Saved, {k: v for k, v in raw.items() if k not in told}, "it")
        check_choice("folder of shards", pointer.folder, FOLDERS)
        for name, size in pointer.files.items():
            part = path.with_name(pointer.folder) / Path(name).name
            if part.stat().st_size != size:
                raise OSError(f"{part} has {part.stat().st_size} bytes instead of {size}")
            check_header(part)
    except (OSError, ValueError, TypeError) as error:
        raise InvalidInput(f"{path} is not a checkpoint of qna: {type(error).__name__}: {error}") from None
    return pointer, saved


def _check_digests(path: Path, pointer: Pointer) -> None:
    for name, digest in pointer.sha256.items():
        if _digest(path.with_name(pointer.folder) / Path(name).name) != digest:
            raise InvalidInput(
                f"{pointer.folder} is damaged: the bytes of {name} are not those that were written"
            )


def _digest(part: Path) -> str:
    with part.open("rb") as file:
        return sha256_of(file)


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
    current = _read_pointer(path)[0].folder if path.exists() else FOLDERS[1]
    name = _other(current)
    _remove(path.with_name(name))
    path.with_name(name).mkdir()
    return name


def _other(name: str) -> str:
    return FOLDERS[1 - FOLDERS.index(name)]


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
