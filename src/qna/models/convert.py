"""Checkpoints of a family's authors to safetensors, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from qna._core.errors import InvalidInput, check_choice, require
from qna._core.files import write_whole
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
        _write_safetensors(target, weights, model, arguments)
        return len(weights)
    weights, metadata = _read_safetensors(source)
    written = metadata.get("model", model)
    if written != model:
        raise InvalidInput(f"{source} holds a {written}, not a {model}")
    arguments = {**json.loads(metadata.get("arguments", "{}")), **arguments}
    assert authors.write is not None
    authors.write(target, weights, model, arguments, source=str(source))
    return len(weights)


def _write_safetensors(path: Path, weights: dict[str, Tensor], model: str, arguments: dict[str, Any]) -> None:
    safetensors = require("safetensors.torch", extra="models", purpose="writing weights")
    metadata = {"format": "pt", "model": model, "arguments": json.dumps(arguments)}
    write_whole(path, lambda temporary: safetensors.save_file(weights, temporary, metadata=metadata))


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    safetensors = require("safetensors", extra="models", purpose="reading weights")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror or error}") from None
    except safetensors.SafetensorError as error:
        raise InvalidInput(f"{path} is no safetensors file, or a truncated one: {error}") from None
