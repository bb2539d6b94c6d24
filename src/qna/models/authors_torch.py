"""Checkpoints of authors who train in PyTorch: state dicts whose names differ from ours."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from qna._core.backends import short
from qna._core.errors import InvalidInput
from qna._core.state_dict import read_state_dict
from qna._core.tensor_file import read_tensors
from qna.models.whole import check_whole

logger = logging.getLogger("qna")

Network = TypeVar("Network", bound=nn.Module)


def read_authors(
    path: Path,
    model: str,
    build: Callable[..., Network],
    authors_name: Callable[[str, Network], str],
    *,
    classifier: str,
    left_out: Callable[[str], object] = lambda name: False,
    joined: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda found: found,
) -> dict[str, Tensor]:
    """State dict of `model` from a file of its authors, whole or not at all.

    Args:
        path: a torch file, read as `read_state_dict` reads it.
        model: its name, for errors.
        build: makes the network, of ``num_classes=``.
        authors_name: what the authors call a tensor, of our name for it and the network. The layout is the
            same there and here, but that a linear map may be a convolution of one tap there, and a table
            `position_table` of rows, columns and heads one of places and heads.
        classifier: what the authors call the layer that ends in the logits, whose rows say how many classes
            the checkpoint has.
        left_out: whether a tensor of theirs, by its name, is none of the network's; a line of the log "qna"
            says how many there were.
        joined: the tensors of theirs with those put together that are one here.

    Raises:
        InvalidInput: a file that cannot be read, or the first tensor that is missing, left over, of another
            shape or no floating-point numbers.
    """
    found = read_weights(path)
    if without := [name for name in found if left_out(name)]:
        logger.warning("%d tensors of %s are left out, as no weights: %s ...", len(without), path, without[0])
        found = {name: tensor for name, tensor in found.items() if name not in without}
    found = joined(found)
    head = found.get(f"{classifier}.weight")
    with torch.device("meta"):
        network = build(num_classes=len(head) if head is not None and head.ndim and len(head) else 1000)
    own = network.state_dict()
    theirs = {key: authors_name(key, network) for key in own}
    for key, name in theirs.items():
        if name in found and found[name].shape == (*own[key].shape, 1, 1) and own[key].ndim == 2:
            found[name] = found[name].flatten(1)
        if key.endswith(".position_table") and name in found:
            rows, columns, heads = own[key].shape
            if found[name].shape == (rows * columns, heads):
                found[name] = found[name].unflatten(0, (rows, columns))
    check_whole(
        str(path),
        model,
        {theirs[key]: tuple(tensor.shape) for key, tensor in own.items()},
        {name: tuple(tensor.shape) for name, tensor in found.items()},
    )
    for key, name in theirs.items():
        if own[key].is_floating_point() and not found[name].is_floating_point():
            raise InvalidInput(f"{path}: {said_of_dtype(name, found[name])}")
        if found[name].is_complex():
            raise InvalidInput(f"{path}: {name} is {short(found[name].dtype)}, a count must be an integer")
    # of several that share one storage each gets its own
    return {key: found[name].clone() for key, name in theirs.items()}


def said_of_dtype(name: str, tensor: Tensor) -> str:
    """What is wrong with a weight that is no floating-point numbers."""
    return f"{name} is {short(tensor.dtype)}, a weight must be of floating point"


def join_rows(found: dict[str, Tensor], parts: Sequence[str], whole: str) -> None:
    """Put tensors of theirs that are rows of one here in its place, under the name `whole`.

    Raises:
        InvalidInput: one is missing, or they do not fit together.
    """
    for name in parts[1:]:
        if name not in found:
            raise InvalidInput(f"{name} is missing beside {parts[0]}")
    for name in parts:
        # put together with floating-point numbers they would pass for such
        if not found[name].is_floating_point():
            raise InvalidInput(said_of_dtype(name, found[name]))
        if found[name].shape[1:] != found[parts[0]].shape[1:] or not found[name].ndim:
            shapes = f"{tuple(found[parts[0]].shape)} and {tuple(found[name].shape)}"
            raise InvalidInput(f"{parts[0]} and {name} do not fit together, with shapes {shapes}")
    found[whole] = torch.cat([found.pop(name) for name in parts])


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors by name of a torch file, as `read_state_dict` reads it, or of a safetensors file.

    Raises:
        InvalidInput: a file that cannot be read, or holds anything else.
    """
    try:
        return read_tensors(path)[0] if path.suffix == ".safetensors" else read_state_dict(path)
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror or error}") from None
    except Exception as error:  # what a damaged file makes of the readers is not listed anywhere
        kind = "" if isinstance(error, InvalidInput) else f"{type(error).__name__}: "
        # torch goes on with advice that is no use here
        cause = " ".join(str(error).split()).partition(". ")[0]
        raise InvalidInput(f"{path} is no PyTorch checkpoint, or a truncated one: {kind}{cause}") from None
