"""Files of Flax: read and written with msgpack alone, without JAX.

A Flax checkpoint is one msgpack map, nested by module names. Extension type 1 is an array, itself msgpack:
(shape, dtype name, bytes); 2 a complex number; 3 an array that stands for a scalar. An array above 1 GiB is a
map of flat pieces.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qna._core.errors import InvalidInput, require
from qna._core.files import write_whole
from qna._core.outside import as_line

_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3
_CHUNKED = "__msgpack_chunked_array__"
_CHUNK_BYTES = 2**30
# Flax nests by modules, and writes maps where lists could be; a list is made before its items are seen
_LEVELS, _LIST = 64, 1024
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


def read_flax(path: Path) -> Any:
    """Decode a Flax msgpack file; arrays become `PackedArray`.

    Raises:
        InvalidInput: the file cannot be read, is truncated, or is something else.
    """
    msgpack = require("msgpack", extra="models", purpose="reading Flax checkpoints")

    def extension(code: int, data: bytes) -> Any:
        if code in (_ARRAY, _SCALAR):
            shape, dtype, content = msgpack.unpackb(data, max_array_len=_LIST)
            return _array(shape, dtype, content)
        return complex(*msgpack.unpackb(data, max_array_len=_LIST)) if code == _COMPLEX else None

    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from None
    try:
        tree = msgpack.unpackb(
            content, ext_hook=extension, raw=False, strict_map_key=False, max_array_len=_LIST
        )
    except (ValueError, TypeError, RecursionError, OverflowError, msgpack.UnpackException) as error:
        why = as_line(str(error)) or type(error).__name__
        raise InvalidInput(f"{path} is no Flax checkpoint, or a truncated one: {why}") from None
    if not isinstance(tree, dict):
        raise InvalidInput(f"{path} is no Flax checkpoint: it holds a {type(tree).__name__}, not a map")
    return tree


def _array(shape: Any, dtype: Any, data: Any) -> PackedArray:
    """The array that a file describes; ValueError where it cannot be one."""
    if not isinstance(dtype, str) or not isinstance(data, bytes):
        raise ValueError(f"an array of {type(data).__name__} with {type(dtype).__name__} as its type")
    plain = isinstance(shape, list | tuple) and all(type(n) is int and n >= 0 for n in shape)
    if not plain or math.prod(n or 1 for n in shape) >= 2**60:  # torch multiplies what an empty axis hides
        raise ValueError(f"an array of shape {str(shape)[:100]}")
    if dtype in _DTYPES and len(data) != math.prod(shape) * _DTYPES[dtype].itemsize:
        raise ValueError(f"an array of {len(data)} bytes, which do not fill {tuple(shape)} {dtype}")
    return PackedArray(tuple(shape), dtype, data)


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


def flatten(node: Any, path: str = "", level: int = 0) -> Iterator[tuple[str, PackedArray]]:
    """Arrays of nested maps by their path, "params/StemBlock_0/conv_1x1/kernel"; pieces are joined.

    Raises:
        InvalidInput: for what is neither map nor array, an array that lacks a piece, or too many levels.
    """
    if level > _LEVELS:
        raise InvalidInput(f"{path[:100]}... lies deeper than {_LEVELS} levels")
    if isinstance(node, PackedArray):
        yield path, node
    elif isinstance(node, dict) and _CHUNKED in node:
        yield path, _joined(node, path)
    elif isinstance(node, dict):
        for name, child in node.items():
            yield from flatten(child, f"{path}/{as_line(str(name))[:200]}".lstrip("/"), level + 1)
    else:
        raise InvalidInput(f"{path} is a {type(node).__name__}, not an array")


def _joined(node: dict[str, Any], path: str) -> PackedArray:
    try:
        shape = tuple(node["shape"][str(i)] for i in range(len(node["shape"])))
        pieces = [node["chunks"][str(i)] for i in range(len(node["chunks"]))]
        if len({piece.dtype for piece in pieces}) != 1:
            raise TypeError("pieces of several types")
        return _array(shape, pieces[0].dtype, b"".join(piece.data for piece in pieces))
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        raise InvalidInput(f"{path} is an array in pieces of which some are missing") from None


def _numbered(values: Any) -> dict[str, Any]:
    return {str(i): value for i, value in enumerate(values)}
