"""The authors' Flax checkpoints: read and written with msgpack alone, without JAX.

A Flax checkpoint is one msgpack map, nested by module names. Extension type 1 is an array, itself msgpack:
(shape, dtype name, bytes); 2 a complex number; 3 an array that stands for a scalar. An array above 1 GiB is a
map of flat pieces. Parameters may lie at the top, under "params", or inside a training state.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qna._core.errors import InvalidInput, check_choice, require
from qna._core.files import write_whole
from qna.models.qna_vit.authors import authors_tensors
from qna.models.qna_vit.network import QnAViT
from qna.models.qna_vit.variants import QNA_VIT

_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3
_CHUNKED = "__msgpack_chunked_array__"
_CHUNK_BYTES = 2**30
# torch's batch norm counts, Flax's does not
_COUNTER = "num_batches_tracked"
_DTYPES = {name: getattr(torch, name) for name in ("float32", "float16", "bfloat16", "float64")}


@dataclass(frozen=True)
class PackedArray:
    """An array of a Flax file, not yet decoded: a training state holds many that nobody asks for."""

    shape: tuple[int, ...]
    dtype: str
    data: bytes

    def tensor(self, name: str) -> Tensor:
        """The array as a tensor of its own.

        Raises:
            InvalidInput: it is not of floating point, or its bytes do not fill its shape.
        """
        if self.dtype not in _DTYPES:
            raise InvalidInput(f"{name} is {self.dtype}, a weight must be one of {', '.join(_DTYPES)}")
        dtype = _DTYPES[self.dtype]
        if len(self.data) != math.prod(self.shape) * dtype.itemsize:
            raise InvalidInput(
                f"{name} has {len(self.data)} bytes, which do not fill {self.shape} {self.dtype}"
            )
        if not self.data:
            return torch.empty(self.shape, dtype=dtype)
        return torch.frombuffer(bytearray(self.data), dtype=dtype).reshape(self.shape)


def convert(source: Path, target: Path, model: str, arguments: Mapping[str, Any] | None = None) -> int:
    """Convert a checkpoint of the authors to safetensors, or back; the suffix of `target` says which.

    Args:
        source: a Flax msgpack file, or safetensors that `convert` or `qna train` wrote.
        target: a new file with the suffix .safetensors or .msgpack. It is written whole or not at all.
        model: a name of `QNA_VIT`.
        arguments: how the model differs from that variant: stem, global_pool, shortcut, img_size.

    Returns:
        the number of tensors.

    Raises:
        InvalidInput: a file that cannot be read or is something else, or the first tensor that is missing,
            left over or of another shape. Nothing is written then.
    """
    check_choice("model", model, QNA_VIT)
    arguments = dict(arguments or {})
    suffixes = (".msgpack", ".safetensors")
    if target.suffix not in suffixes:
        raise InvalidInput(f"{target} must end in {' or '.join(suffixes)}: the suffix says what is written")
    if not target.parent.is_dir():
        raise InvalidInput(f"there is no folder {target.parent} to write {target.name} in")
    if target.suffix == ".safetensors":
        weights = from_flax(read_flax(source), model, arguments, name=str(source))
        _write_safetensors(target, weights, model, arguments)
        return len(weights)
    weights, metadata = _read_safetensors(source)
    written = metadata.get("model", model)
    if written != model:
        raise InvalidInput(f"{source} holds a {written}, not a {model}")
    arguments = {**json.loads(metadata.get("arguments", "{}")), **arguments}
    tree = to_flax(weights, model, arguments, name=str(source))
    write_flax(target, tree)
    return len(weights)


def from_flax(
    tree: Any, model: str, arguments: Mapping[str, Any] | None = None, *, name: str = "the checkpoint"
) -> dict[str, Tensor]:
    """State dict of `model` from a decoded Flax checkpoint; errors as for `convert`."""
    found = dict(_flatten(_collections(tree, name)))
    head = found.get("params/ClassificationHead_0/head_logits/bias")
    classes = head.shape[0] if head is not None and len(head.shape) == 1 else 1000
    skeleton = _skeleton(model, classes, arguments)
    expected = authors_tensors(skeleton)
    _compare(name, model, {t.path: t.shape for t in expected}, {p: a.shape for p, a in found.items()})
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
    """Nested {"params": ..., "batch_stats": ...} of tensors from a state dict; errors as for `convert`."""
    weights = {key: t for key, t in weights.items() if not key.endswith(_COUNTER)}
    classes = len(weights["head.fc.bias"]) if "head.fc.bias" in weights else 1000
    expected = authors_tensors(_skeleton(model, classes, arguments))
    _compare(name, model, {t.key: t.ours for t in expected}, {k: tuple(t.shape) for k, t in weights.items()})
    tree: dict[str, Any] = {}
    for t in expected:
        *folders, leaf = t.path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = t.to_authors(weights[t.key])
    return tree


def read_flax(path: Path) -> Any:
    """Decode a Flax msgpack file; arrays become `PackedArray`.

    Raises:
        InvalidInput: the file cannot be read, is truncated, or is something else.
    """
    msgpack = require("msgpack", extra="models", purpose="reading Flax checkpoints")

    def extension(code: int, data: bytes) -> Any:
        if code in (_ARRAY, _SCALAR):
            shape, dtype, content = msgpack.unpackb(data)
            return PackedArray(tuple(shape), dtype, content)
        return complex(*msgpack.unpackb(data)) if code == _COMPLEX else None

    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from None
    try:
        tree = msgpack.unpackb(content, ext_hook=extension, raw=False, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        why = str(error) or type(error).__name__
        raise InvalidInput(f"{path} is no Flax checkpoint, or a truncated one: {why}") from None
    if not isinstance(tree, dict):
        raise InvalidInput(f"{path} is no Flax checkpoint: it holds a {type(tree).__name__}, not a map")
    return tree


def write_flax(path: Path, tree: Mapping[str, Any]) -> None:
    """Write nested maps of tensors as Flax does; whole or not at all."""
    msgpack = require("msgpack", extra="models", purpose="writing Flax checkpoints")

    def array(tensor: Tensor) -> Any:
        dtype = str(tensor.dtype).removeprefix("torch.")
        raw = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        return msgpack.ExtType(_ARRAY, msgpack.packb((tuple(tensor.shape), dtype, raw)))

    def node(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return {name: node(child) for name, child in value.items()}
        if value.numel() * value.element_size() <= _CHUNK_BYTES:
            return array(value)
        pieces = value.flatten().split(max(1, _CHUNK_BYTES // value.element_size()))
        return {_CHUNKED: True, "shape": _numbered(value.shape), "chunks": _numbered(map(array, pieces))}

    packed = msgpack.packb(node(tree))
    write_whole(path, lambda temporary: temporary.write_bytes(packed))


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


def _flatten(node: Any, path: str = "") -> Iterator[tuple[str, PackedArray]]:
    if isinstance(node, PackedArray):
        yield path, node
    elif isinstance(node, dict) and _CHUNKED in node:
        yield path, _joined(node, path)
    elif isinstance(node, dict):
        for name, child in node.items():
            yield from _flatten(child, f"{path}/{name}".lstrip("/"))
    else:
        raise InvalidInput(f"{path} is a {type(node).__name__}, not an array")


def _joined(node: dict[str, Any], path: str) -> PackedArray:
    try:
        shape = tuple(node["shape"][str(i)] for i in range(len(node["shape"])))
        pieces = [node["chunks"][str(i)] for i in range(len(node["chunks"]))]
        return PackedArray(shape, pieces[0].dtype, b"".join(piece.data for piece in pieces))
    except (KeyError, IndexError, TypeError, AttributeError):
        raise InvalidInput(f"{path} is an array in pieces of which some are missing") from None


def _numbered(values: Any) -> dict[str, Any]:
    return {str(i): value for i, value in enumerate(values)}


def _skeleton(model: str, classes: int, arguments: Mapping[str, Any] | None) -> QnAViT:
    """The model without data."""
    with torch.device("meta"):
        return QnAViT.of(QNA_VIT[model], num_classes=classes, **(arguments or {}))


def _compare(
    name: str, model: str, expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> None:
    missing = [path for path in expected if path not in found]
    extra = sorted(path for path in found if path not in expected)
    if missing:
        more = f" (and {len(missing) - 1} more)" * (len(missing) > 1)
        hint = f"; it has {extra[0]}, which a {model} has not" if extra else ""
        raise InvalidInput(f"{name} is no {model}: {missing[0]} is missing{more}{hint}")
    if extra:
        more = f" (and {len(extra) - 1} more)" * (len(extra) > 1)
        raise InvalidInput(f"{name} is no {model}: it has {extra[0]}{more}, which that model has not")
    for path, shape in expected.items():
        if found[path] != shape:
            raise InvalidInput(f"{name} is no {model}: {path} has shape {found[path]}, not {shape}")


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
