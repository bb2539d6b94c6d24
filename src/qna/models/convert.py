"""Checkpoints of a family's authors to safetensors, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from qna._core.errors import InvalidInput, check_choice
from qna._core.tensor_file import read_tensors, write_tensors
from qna._core.typed_json import parse_json
from qna.models.registry import FAMILIES


def convert(source: Path, target: Path, model: str, arguments: Mapping[str, Any] | None = None) -> int:
    """Convert a checkpoint of the authors to safetensors, or back; the suffix of `target` says which.

    Args:
        source: a file of the authors, or safetensors that `convert` or `qna train` wrote.
        target: a new file with the suffix .safetensors, or that of the authors' files. It is written whole or
            not at all.
        model: a name in one of `FAMILIES`.
        arguments: how the model differs from that variant; of QnA-ViT stem, global_pool, shortcut, img_size.

    Returns:
        the number of tensors.

    Raises:
        UnknownName: no family has such a model, or takes such an argument, with the nearest names.
        InvalidInput: its family has no checkpoints that can be read, or written; a file that cannot be read
            or is something else, or the first tensor that is missing, left over or of another shape. Nothing
            is written then.
        OSError: if `target` cannot be written; what was there still is.
    """
    families = {name: family for family in FAMILIES.values() for name in family.variants}
    check_choice("model", model, families)
    family = families[model]
    if family.authors is None:
        able = ", ".join(f.name for f in FAMILIES.values() if f.authors is not None)
        raise InvalidInput(
            f"{model} is of {family.name}, of which no published checkpoint can be read; "
            f"those of {able} can be"
        )
    arguments = dict(arguments or {})
    for argument in arguments:
        check_choice(f"argument of {model}", argument, family.arguments(model))
    authors = family.authors
    suffixes = (".safetensors",) if authors.write is None else (authors.suffix, ".safetensors")
    if target.suffix not in suffixes:
        raise InvalidInput(f"{target} must end in {' or '.join(suffixes)}: the suffix says what is written")
    if not target.parent.is_dir():
        raise InvalidInput(f"there is no folder {target.parent} to write {target.name} in")
    if target.suffix == ".safetensors":
        weights = authors.read(source, model, arguments)
        metadata = {"format": "pt", "model": model, "arguments": json.dumps(arguments)}
        write_tensors(target, weights, metadata)
        return len(weights)
    weights, metadata = _read_safetensors(source)
    written = metadata.get("model", model)
    if written != model:
        raise InvalidInput(f"{source} holds a {written}, not a {model}")
    arguments = {**_told_arguments(source, metadata, family.arguments(model)), **arguments}
    assert authors.write is not None
    try:
        authors.write(target, weights, model, arguments, source=str(source))
    except (TypeError, KeyError, AttributeError, RuntimeError, ZeroDivisionError, OverflowError) as error:
        given = ", ".join(f"{name}={value}" for name, value in arguments.items())
        cause = " ".join(str(error).split())
        raise InvalidInput(f"{model} cannot be built with {given}: {cause}") from error
    return len(weights)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        weights, metadata = read_tensors(path)
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror or error}") from None
    except InvalidInput as error:
        raise InvalidInput(f"{path} is no safetensors file, or a truncated one: {error}") from None
    for name, tensor in weights.items():
        if not tensor.is_floating_point() and not name.endswith("num_batches_tracked"):
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise InvalidInput(f"{path}: {name!r} is {dtype}, a weight must be of floating point")
    return weights, metadata


def _told_arguments(path: Path, metadata: Mapping[str, str], known: set[str]) -> dict[str, Any]:
    """Arguments of the model that `convert` wrote beside the weights."""
    told = parse_json(metadata.get("arguments", "{}"), f"the header of {path}")
    if not isinstance(told, dict):
        raise InvalidInput(f"the header of {path} does not tell arguments by name")
    for name, value in told.items():
        check_choice(f"argument in the header of {path}", name, known)
        if not isinstance(value, str | int | float | None):
            raise InvalidInput(f"the header of {path} gives {name} as a {type(value).__name__}")
    return told
