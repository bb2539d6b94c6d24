"""Files of weights, from here and elsewhere: which tensors they hold, and whether a network can take them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qna._core.errors import InvalidInput
from qna._core.tensor_file import read_tensors
from qna._core.torch_file import read_torch
from qna.train.checkpoint import SHARDED_CHECKPOINT
from qna.train.fitting import load_whole

logger = logging.getLogger("qna")

# where a checkpoint of others keeps its weights: averages first, as timm chooses
_AVERAGES = ("state_dict_ema", "model_ema")
_PLAIN = ("state_dict", "model")
# what torch.compile and DistributedDataParallel put before every name, in either order
_WRAPPERS = ("_orig_mod.", "module.")


def load_start(network: nn.Module, path: Path) -> None:
    """Start from the weights in `path`; a classifier for another number of classes keeps its fresh weights.

    Args:
        network: changed in place.
        path: as for `read_weights`.

    Raises:
        InvalidInput: if the file cannot be read, or its first tensor that does not fit.
    """
    given, own = read_weights(path), network.state_dict()
    for head in classifier_names(network):
        names = [name for name in own if name.startswith(f"{head}.")]
        # a part that is missing is no other number of classes
        if any(name in given and given[name].shape != own[name].shape for name in names) or not any(
            name in given for name in names
        ):
            given |= {name: own[name] for name in names}
    load_whole(network, given, path)


def classifier_names(network: nn.Module) -> tuple[str, ...]:
    """Names of the layers that end in the logits, as timm's configuration of the network tells."""
    named = getattr(network, "default_cfg", {}).get("classifier") or ()
    return (named,) if isinstance(named, str) else tuple(named)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name.

    Where a checkpoint holds a running average beside the weights, the average is taken, and a line of the log
    "qna" says so.

    Args:
        path: a safetensors file, a run's checkpoint among them (with shards: its checkpoint.json), or a torch
            file of tensors: a state dict, one in a checkpoint under "state_dict" or "model", or what timm's
            train.py writes. Nothing but tensors, plain values and an argparse.Namespace is unpickled.

    Raises:
        InvalidInput: if the file cannot be read, or holds anything else.
    """
    try:
        if path.name == SHARDED_CHECKPOINT:
            from qna.train.sharded_checkpoint import read_shards

            tensors = read_shards(path)
        elif path.suffix == ".safetensors":
            tensors, _ = read_tensors(path)
        else:
            tensors = _in_checkpoint(read_torch(path), path)
    except Exception as error:  # what a damaged file makes of the readers is not listed anywhere
        kind = "" if isinstance(error, InvalidInput) else f"{type(error).__name__}: "
        cause = " ".join(str(error).split())
        raise InvalidInput(f"{path} cannot be read as weights: {kind}{cause}") from None
    return _of_run({_bare(name): tensor for name, tensor in tensors.items()}, path)


def _in_checkpoint(loaded: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in what a torch file holds."""
    if isinstance(loaded, dict):
        found = [name for name in (*_AVERAGES, *_PLAIN) if isinstance(loaded.get(name), dict)]
        if found:
            if found[0] in _AVERAGES and any(name in _PLAIN for name in found):
                _say_which(path, found[0], next(name for name in found if name in _PLAIN))
            loaded = loaded[found[0]]
    if not isinstance(loaded, dict):
        raise InvalidInput(f"it must hold tensors by name, got {type(loaded).__name__}")
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InvalidInput(f"it must hold tensors by name, got {type(value).__name__} as {name!r}")
        plain = value.layout is torch.strided and not value.is_quantized and value.device.type == "cpu"
        # a view may repeat one number as often as it likes
        if not plain or value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise InvalidInput(f"{name!r} is not a plain tensor")
    return dict(loaded)


def _bare(name: str) -> str:
    """`name` without what wrappers put before it."""
    while name.startswith(_WRAPPERS):
        name = name.partition(".")[2]
    return name


def _of_run(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The weights that a run's checkpoint would evaluate; any other file's tensors as they are."""
    parts = ("average/", "network/")
    found = [part for part in parts if any(name.startswith(part) for name in tensors)]
    if not found:
        return tensors
    if len(found) > 1:
        _say_which(path, "its average", "those that were trained")
    start = found[0]
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}


def _say_which(path: Path, taken: str, left: str) -> None:
    logger.warning("of the weights in %s the running average is taken: %s, not %s", path, taken, left)
