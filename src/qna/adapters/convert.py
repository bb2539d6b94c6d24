"""Checkpoints of an adapter's authors to safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from qna._core.errors import InvalidInput, check_choice
from qna._core.tensor_file import write_tensors
from qna.adapters.registry import ADAPTERS
from qna.adapters.row import Adapter
from qna.models.authors_torch import read_authors
from qna.models.registry import create


def convert(
    source: Path, target: Path, model: str, adapter: Adapter, arguments: Mapping[str, Any] | None = None
) -> int:
    """Convert a checkpoint of the authors of an adapter to safetensors.

    Args:
        source: a file of the authors.
        target: a new file with the suffix .safetensors. It is written whole or not at all.
        model: what the adapter is put around, by its name in timm: "deit_small_patch16_224".
        adapter: as it was configured.
        arguments: of the model.

    Returns:
        the number of tensors.

    Raises:
        UnknownName: for a model that timm does not know, with the nearest names.
        InvalidInput: an adapter of which no checkpoint is published, a file that cannot be read or is
            something else, or the first tensor that is missing, left over or of another shape. Nothing is
            written then.
        OSError: if `target` cannot be written; what was there still is.
    """
    row = ADAPTERS[check_choice("adapter", adapter.name, ADAPTERS)]
    if row.authors is None:
        able = ", ".join(name for name, other in ADAPTERS.items() if other.authors is not None)
        raise InvalidInput(
            f"of adapter {adapter.name} no published checkpoint can be read; those of {able} can be"
        )
    if target.suffix != ".safetensors":
        raise InvalidInput(f"{target} must end in .safetensors: the suffix says what is written")
    if not target.parent.is_dir():
        raise InvalidInput(f"there is no folder {target.parent} to write {target.name} in")

    def build(num_classes: int) -> nn.Module:
        return adapter.apply(create(model, num_classes=num_classes, **(arguments or {})))

    told = f"{model} with {adapter.name}"
    weights = read_authors(source, told, build, row.authors.name_of, classifier=row.authors.classifier)
    settings = {"adapter": adapter.name, "adapter_arguments": json.dumps(adapter.settings())}
    metadata = {"format": "pt", "model": model, "arguments": json.dumps(dict(arguments or {})), **settings}
    write_tensors(target, weights, metadata)
    return len(weights)
