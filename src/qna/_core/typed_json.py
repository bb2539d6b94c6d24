"""Values as JSON gives them, brought to the types that dataclasses declare."""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any

from qna._core.errors import InvalidInput, check_choice


def from_json_value(kind: Any, raw: Any, where: str) -> Any:
    """Return `raw` as a value of type `kind`.

    Args:
        kind: a dataclass (fields that are not there take their defaults), a Literal of strings, an optional,
            a tuple, Path, float (an integer will do), int, bool or str.
        raw: what the json module gives.
        where: what the value is, for the error text.

    Raises:
        UnknownName: for a field or choice that does not exist, with the nearest names.
        InvalidInput: for a value of another type.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(raw, dict):
        return _dataclass(kind, raw, where)
    if origin in (typing.Union, types.UnionType):
        (kind,) = [a for a in arguments if a is not types.NoneType]
        return None if raw is None else from_json_value(kind, raw, where)
    if origin is typing.Literal:
        return check_choice(where, raw, arguments)
    if origin is tuple and isinstance(raw, list):
        kinds = arguments[:1] * len(raw) if arguments[-1] is Ellipsis else arguments
        if len(kinds) == len(raw):
            return tuple(from_json_value(k, v, where) for k, v in zip(kinds, raw, strict=True))
    if kind is Path and isinstance(raw, str):
        raw = Path(raw)
    elif kind is float and type(raw) is int:
        raw = float(raw)
    elif type(raw) is not kind:
        raise InvalidInput(f"{where} must be {getattr(kind, '__name__', kind)}, got {raw!r}")
    return raw


def _dataclass(kind: Any, raw: dict[str, Any], where: str) -> Any:
    kinds = typing.get_type_hints(kind)
    for name in raw:
        check_choice(f"field of {where}", name, kinds)
    return kind(**{name: from_json_value(kinds[name], value, name) for name, value in raw.items()})
