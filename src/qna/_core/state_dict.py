"""The tensors by name that a file of torch.save holds, wherever in a checkpoint they lie."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qna._core.errors import InvalidInput
from qna._core.torch_file import read_torch

logger = logging.getLogger("qna")

# where a checkpoint of others keeps its weights: averages first, as timm chooses
_AVERAGES = ("state_dict_ema", "model_ema")
_PLAIN = ("state_dict", "model")
# what torch.compile and DistributedDataParallel put before every name, in either order
_WRAPPERS = ("_orig_mod.", "module.")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The state dict of a torch file: bare, or in a checkpoint under "state_dict" or "model".

    Where a checkpoint holds a running average beside the weights, the average is taken, and a line of the log
    "qna" says so. What wrappers of networks put before every name is left out.

    Raises:
        OSError: if it cannot be read.
        InvalidInput: if it holds anything else; the sentence does not name it.
        Exception: of any kind, which torch makes of a damaged file.
    """
    return {bare(name): tensor for name, tensor in _in_checkpoint(read_torch(path), path).items()}


def say_which_average(path: Path, taken: str, left: str) -> None:
    """Say in the log that of two kinds of weights in a file the running average is taken."""
    logger.warning("of the weights in %s the running average is taken: %s, not %s", path, taken, left)


def _in_checkpoint(loaded: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in what a torch file holds."""
    if isinstance(loaded, dict):
        found = [name for name in (*_AVERAGES, *_PLAIN) if isinstance(loaded.get(name), dict)]
        if found:
            if found[0] in _AVERAGES and any(name in _PLAIN for name in found):
                say_which_average(path, found[0], next(name for name in found if name in _PLAIN))
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


def bare(name: str) -> str:
    """`name` without what wrappers put before it."""
    while name.startswith(_WRAPPERS):
        name = name.partition(".")[2]
    return name
