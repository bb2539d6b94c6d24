"""Values as JSON gives them, brought to the types that dataclasses declare."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from pathlib import Path
from typing import Any

from qna._core.errors import InvalidInput, check_choice


def parse_json(text: str | bytes, what: str) -> Any:
    """What `text` says.

    Args:
        text: UTF-8 where it is bytes.
        what: the text is, for the error.

    Raises:
        InvalidInput: if it is not JSON, not UTF-8, or nested too deeply.
    """
    try:
        return json.loads(text)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{what} is not UTF-8: {error.reason} at byte {error.start}") from None
    except RecursionError:
        raise InvalidInput(f"{what} is not JSON that can be read: it is nested too deeply") from None
    except ValueError as error:
        raise InvalidInput(f"{what} is not JSON: {error}") from None


def from_json_value(kind: Any, raw: Any, where: str) -> Any:
    """Return `raw` as a value of type `kind`.

    Args:
        kind: a dataclass (fields that are not there take their defaults), a Literal of strings, an optional,
            a tuple, a list, a dict of anything by name, Path, float (an integer will do; finite), int (of 64
            bits), bool or str.
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
    if origin is list and isinstance(raw, list):
        return [from_json_value(arguments[0], value, f"an item of {where}") for value in raw]
    return raw if origin is dict and isinstance(raw, dict) else _plain(kind, raw, where)


def _plain(kind: Any, raw: Any, where: str) -> Any:
    """A path, a number, a truth value or a text."""
    if kind is Path and isinstance(raw, str) and "\0" not in raw:
        return Path(raw)
    if type(raw) is int and not -(2**63) <= raw < 2**63:
        raise InvalidInput(f"{where} must have at most 64 bits, got a number of {raw.bit_length()}")
    value = float(raw) if kind is float and type(raw) is int else raw
    if type(value) is not kind:
        shown = repr(raw) if len(repr(raw)) < 100 else f"{repr(raw)[:100]}..."
        raise InvalidInput(f"{where} must be {getattr(kind, '__name__', kind)}, got {shown}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput(f"{where} must be finite, got {value}")
    return value


def _dataclass(kind: Any, raw: dict[str, Any], where: str) -> Any:
    kinds = typing.get_type_hints(kind)
    for name in raw:
        check_choice(f"field of {where}", name, kinds)
    for field in dataclasses.fields(kind):
        if field.name not in raw and field.default is field.default_factory is dataclasses.MISSING:
            raise InvalidInput(f"{where} has no {field.name!r}")
    return kind(**{name: from_json_value(kinds[name], value, name) for name, value in raw.items()})
