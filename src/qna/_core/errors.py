"""The errors that qna raises for bad input: one sentence with the values and the way out."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType

# a message names all that is known up to this many
_LISTED = 40


class InvalidInput(ValueError):
    """An argument has a value, shape, dtype or device that the callee cannot use."""


class UnknownName(InvalidInput):
    """A name that no registry entry, mode or option has."""

    def __init__(self, kind: str, name: object, known: Iterable[str]):
        known = sorted(known)
        near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
        if near:
            hint = f"did you mean {' or '.join(map(repr, near))}?"
        elif len(known) <= _LISTED:
            hint = "known: " + ", ".join(known)
        else:
            hint = f"none of the {len(known):,} known names is near it"
        super().__init__(f"unknown {kind} {name!r}; {hint}")


class NoBackend(RuntimeError):
    """No backend, or not the one that was named, can run these inputs."""


class MissingExtra(ImportError):
    """A feature needs a package of an extra that is not installed."""


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import and return `module`, or say in one sentence which extra of qna brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".", maxsplit=1)[0]:
            raise
        raise MissingExtra(
            f"{purpose} needs the package {module.split('.', maxsplit=1)[0]!r}: pip install 'qna[{extra}]'"
        ) from None


def check_choice(kind: str, name: str, known: Iterable[str]) -> str:
    """Return `name` if it is one of `known`; otherwise raise `UnknownName` with the nearest names."""
    known = tuple(known)
    if name not in known:
        raise UnknownName(kind, name, known)
    return name
