"""Checkpoints of the authors of QnA: Flax files whose parameters lie at the top, under "params", or inside a
training state."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qna._core.errors import InvalidInput
from qna.models.family import Authors
from qna.models.flax_file import flatten, read_flax, write_flax
from qna.models.qna_vit.authors_tensors import authors_tensors
from qna.models.qna_vit.network import QnAViT
from qna.models.qna_vit.variants import QNA_VIT
from qna.models.whole import check_whole

# torch's batch norm counts, Flax's does not
_COUNTER = "num_batches_tracked"


def read(path: Path, model: str, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """State dict of `model` from a file of the authors."""
    return from_flax(read_flax(path), model, arguments, name=str(path))


def write(
    path: Path, weights: Mapping[str, Tensor], model: str, arguments: Mapping[str, Any], *, source: str
) -> None:
    """A file as the authors' code reads it, of weights that came from `source`."""
    write_flax(path, to_flax(weights, model, arguments, name=source))


def from_flax(
    tree: Any, model: str, arguments: Mapping[str, Any] | None = None, *, name: str = "the checkpoint"
) -> dict[str, Tensor]:
    """State dict of `model` from a decoded Flax checkpoint; errors as for `qna.models.convert`."""
    found = dict(flatten(_collections(tree, name)))
    head = found.get("params/ClassificationHead_0/head_logits/bias")
    classes = head.shape[0] if head is not None and len(head.shape) == 1 and head.shape[0] else 1000
    skeleton = _skeleton(model, classes, arguments)
    expected = authors_tensors(skeleton)
    check_whole(name, model, {t.path: t.shape for t in expected}, {p: a.shape for p, a in found.items()})
    weights = {t.key: t.from_authors(found[t.path].tensor(t.path)) for t in expected}
    counters = [key for key in skeleton.state_dict() if key.endswith(_COUNTER)]
    return {**weights, **{key: torch.zeros((), dtype=torch.int64) for key in counters}}


def to_flax(
    weights: Mapping[str, Tensor],
    model: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    name: str = "the state dict",
) -> dict[str, Any]:
    """Nested {"params": ..., "batch_stats": ...} of tensors from a state dict; errors as above."""
    weights = {key: t for key, t in weights.items() if not key.endswith(_COUNTER)}
    bias = weights.get("head.fc.bias")
    classes = len(bias) if bias is not None and bias.ndim == 1 and len(bias) else 1000
    expected = authors_tensors(_skeleton(model, classes, arguments))
    check_whole(
        name, model, {t.key: t.ours for t in expected}, {k: tuple(t.shape) for k, t in weights.items()}
    )
    tree: dict[str, Any] = {}
    for t in expected:
        *folders, leaf = t.path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = t.to_authors(weights[t.key])
    return tree


def _collections(tree: Any, name: str) -> dict[str, Any]:
    """{"params": ..., "batch_stats": ...} wherever a checkpoint keeps them."""
    state = tree.get("optimizer", tree)
    state = state.get("target", state) if isinstance(state, dict) else state
    params = state.get("params", state) if isinstance(state, dict) else None
    while isinstance(params, dict) and set(params) == {"params"}:
        params = params["params"]
    if not isinstance(params, dict) or not any(str(key).startswith("StemBlock") for key in params):
        raise InvalidInput(
            f"{name} holds no parameters of a QnA-ViT: no StemBlock_0 in {sorted(map(str, tree))[:8]}"
        )
    stats = tree.get("batch_stats")
    return {"params": params, "batch_stats": stats} if stats else {"params": params}


def _skeleton(model: str, classes: int, arguments: Mapping[str, Any] | None) -> QnAViT:
    """The model without data."""
    with torch.device("meta"):
        return QnAViT.of(QNA_VIT[model], num_classes=classes, **(arguments or {}))


AUTHORS = Authors(".msgpack", read, write)
