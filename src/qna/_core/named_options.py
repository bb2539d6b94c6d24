"""Configurations as words: "name", or "name:option=value,option=value"."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from qna._core.errors import InvalidInput, check_choice


def configured(kind: str, text: str, known: Mapping[str, Callable[..., Any]]) -> Any:
    """What `text` names among `known`, dataclasses by name, with the options that it gives.

    Args:
        kind: what they are, for errors.
        text: "recall", or "recall:pairs=8,keys=32"; values are numbers.
        known: by name.

    Raises:
        UnknownName: for a name or an option that there is not, with the nearest.
        InvalidInput: for a value that is no number, an option given twice or missing, or what is refused.
    """
    name, _, told = text.partition(":")
    build: Any = known[check_choice(kind, name, known)]
    options, given = [field.name for field in fields(build)], {}
    for word in filter(None, told.split(",")):
        option, _, value = word.partition("=")
        check_choice(f"option of {name}", option, options)
        if option in given:
            raise InvalidInput(f"{name}: {option} is given twice in {text!r}")
        given[option] = _number(name, option, value)
    try:
        return build(**given)
    except TypeError as error:
        raise InvalidInput(f"{kind} {text!r} lacks an option: {error}; it has {', '.join(options)}") from None


def _number(name: str, option: str, text: str) -> int | float:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInput(f"{name}: {option} must be a number, got {text!r}")
    return value
