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
from qna._core.files import read_bytes

# what comes out of a file is gone through by functions that call themselves; ours nests seven
_LEVELS = 32


def read_json(path: Path, what: str = "it") -> Any:
    """What a file of JSON says.

    Args:
        path: of the file.
        what: the text is, for the error.

    Raises:
        OSError: if it cannot be read.
        InvalidInput: if it is too large, not JSON, not UTF-8, or nested too deeply.
    """
    return parse_json(read_bytes(path), what)


def parse_json(text: str | bytes, what: str) -> Any:
    """What `text` says; NaN and infinity are no JSON.

    Args:
        text: UTF-8 where it is bytes.
        what: the text is, for the error.

    Raises:
        InvalidInput: if it is not JSON, not UTF-8, or nested too deeply.
    """
    try:
        # of bytes, json would guess among encodings; some editors put a mark before UTF-8
        text = text if isinstance(text, str) else text.decode("utf-8-sig")
        value = json.loads(text, parse_constant=_no_number)
        if _levels(value) > _LEVELS:
            raise RecursionError
        return value
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{what} is not UTF-8: {error.reason} at byte {error.start}") from None
    except RecursionError:
        raise InvalidInput(f"{what} is not JSON that can be read: it is nested too deeply") from None
    except ValueError as error:
        raise InvalidInput(f"{what} is not JSON: {error}") from None


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def _levels(value: Any) -> int:
    """How deep `value` is nested, as far as it matters."""
    count, level = 0, [value]
    while count <= _LEVELS and (level := [node for node in level if isinstance(node, dict | list)]):
        level = [child for node in level for child in (node.values() if isinstance(node, dict) else node)]
        count += 1
    return count


def known_fields(kind: Any, raw: Any, where: str) -> dict[str, Any]:
    """Of the object `raw` those members that the dataclass `kind` has; others may keep more in a file.

    Raises:
        InvalidInput: if it is no object.
    """
    if not isinstance(raw, dict):
        raise InvalidInput(f"{where} is not an object")
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in raw.items() if name in names}


def from_json_value(kind: Any, raw: Any, where: str) -> Any:
    """Return `raw` as a value of type `kind`.

    Args:
        kind: a dataclass (fields that are not there take their defaults), a Literal of strings, an optional,
            a tuple (of texts also by a text alone), a list, a dict by name, Any, Path, float (an integer will
            do; finite), int (of 64 bits), bool or str.
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
    if arguments == (str, ...) and isinstance(raw, str):
        raw = [raw]
    if origin is tuple and isinstance(raw, list):
        kinds = arguments[:1] * len(raw) if arguments[-1] is Ellipsis else arguments
        if len(kinds) == len(raw):
            return tuple(from_json_value(k, v, where) for k, v in zip(kinds, raw, strict=True))
    if origin in (list, dict) and isinstance(raw, origin):
        return _items(origin, arguments[-1], raw, where)
    return raw if kind is Any else _plain(kind, raw, where)


def _items(origin: type, kind: Any, raw: Any, where: str) -> Any:
    """A list or a dict by name, whose items are of one type."""
    if origin is list:
        return [from_json_value(kind, value, f"an item of {where}") for value in raw]
    return {name: from_json_value(kind, value, f"{name} of {where}") for name, value in raw.items()}


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
    hints = typing.get_type_hints(kind)
    # variables of the class are none of its fields
    kinds = {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    for name in raw:
        check_choice(f"field of {where}", name, kinds)
    for field in dataclasses.fields(kind):
        if field.name not in raw and field.default is field.default_factory is dataclasses.MISSING:
            raise InvalidInput(f"{where} has no {field.name!r}")
    return kind(**{name: from_json_value(kinds[name], value, name) for name, value in raw.items()})
