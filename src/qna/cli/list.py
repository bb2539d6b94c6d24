"""`qna list`: every system of the registries, with its paper and how sure the equality with it is."""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from qna._core.about import About
from qna._core.errors import InvalidInput
from qna._core.files import write_text

# kind -> module and name of its registry, a mapping from names to rows
REGISTRIES = {
    "mixers": ("qna.mixers", "MIXERS"),
    "models": ("qna.models.registry", "FAMILIES"),
    "decoders": ("qna.models.decoder", "DECODERS"),
    "pointers": ("qna.models.pointer", "POINTERS"),
    "volumes": ("qna.models.volumes", "VOLUME_FAMILIES"),
    "adapters": ("qna.adapters", "ADAPTERS"),
    "tasks": ("qna.train.tasks", "TASKS"),
    "labs": ("qna.labs", "LABS"),
}
# kind -> one of its rows, in words
ONE = {
    "mixers": "a layer from a map to a map; `qna.create_mixer` builds it by name",
    "models": "a family of backbones; `timm.create_model` builds its sizes by name",
    "decoders": "a family of networks of tokens, with any causal mixer; `qna.models.create` builds its sizes",
    "pointers": "networks that point at their inputs; `qna.models.pointer.create_pointer` builds their sizes",
    "volumes": "a family of networks of volumes; `qna.models.create` builds its sizes",
    "adapters": "a transform of a network",
    "tasks": "what a run can learn",
    "labs": "a published claim, tried beside its control",
}
STATUS = {
    "exact": "equal to the authors' code, tested",
    "formula": "equal to the paper's equations, tested",
    "after": "the public text leaves details open; the docstring says which choices are ours",
}


@dataclass(frozen=True)
class System:
    """One row of a registry, as it is listed.

    Attributes:
        kind: of the registry.
        name: in it.
        about: the published work; None where the row is of none.
        text: the row's own line; "" where it has none.
        sizes: name of a size -> its parameters, where the row knows them.
    """

    kind: str
    name: str
    about: About | None
    text: str = ""
    sizes: Mapping[str, int | None] = field(default_factory=dict)


def systems(kind: str) -> list[System]:
    """The rows of the registry of a kind, in its order."""
    module, name = REGISTRIES[kind]
    rows: Mapping[str, Any] = getattr(importlib.import_module(module), name)
    return [
        System(
            kind,
            key,
            getattr(row, "about", None),
            getattr(row, "claim", None) or getattr(row, "text", ""),
            {size: variant.parameters for size, variant in getattr(row, "variants", {}).items()},
        )
        for key, row in rows.items()
    ]


def page() -> str:
    """The text of docs/systems.md."""
    lines = [
        "# Systems",
        "",
        "Every mechanism, model, task and laboratory of the registries. This page is made of their rows by",
        "`qna list --write docs/systems.md`; a test fails where they differ.",
        "",
        *(f"- **{status}**: {meaning}." for status, meaning in STATUS.items()),
    ]
    for kind in REGISTRIES:
        lines += ["", f"## {kind.capitalize()}", "", f"Each is {ONE[kind]}.", ""]
        found = systems(kind)
        if not found:
            lines.append(_none(kind))
        elif all(system.about for system in found):
            lines += ["| name | paper | status | read | differs |", "|---|---|---|---|---|"]
            for about, group in groupby(found, lambda system: system.about):
                assert about is not None
                names = "<br>".join(_named(system) for system in group)
                paper = f"{about.title} ({_source(about, link=True)})"
                lines.append(f"| {names} | {paper} | {about.status} | {about.read} | {about.differs} |")
        else:
            lines += [f"- `{system.name}`: {system.text}." for system in found]
    return "\n".join(lines) + "\n"


def table(found: Iterable[System]) -> str:
    """The rows for a terminal, a line each, sizes below."""
    found = list(found)
    width = max(len(name) for system in found for name in (system.name, *system.sizes))
    lines = []
    for system in found:
        about = system.about
        told = system.text if about is None else f"{about.status:<7}  {about.title} ({_source(about)})"
        lines.append(f"  {system.name:<{width}}  {told}")
        for name, parameters in system.sizes.items():
            counted = "" if parameters is None else f"{parameters:,} parameters"
            lines.append(f"    {name:<{width}}  {counted}".rstrip())
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Print the rows of one registry or of all."""
    parser = argparse.ArgumentParser(
        "qna list",
        description="List every system with its paper and its status. "
        + " ".join(f"{status}: {meaning}." for status, meaning in STATUS.items()),
    )
    parser.add_argument("kind", nargs="?", choices=REGISTRIES, help="of what (default: all)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a JSON list with everything known")
    form.add_argument("--write", type=Path, metavar="FILE", help="write the page of the documentation")
    options = parser.parse_args(arguments)
    if options.write is not None:
        try:
            write_text(options.write, page())
        except OSError as error:
            raise InvalidInput(f"cannot write {options.write}: {error}") from None
        return 0
    kinds = REGISTRIES if options.kind is None else [options.kind]
    if options.json:
        print(json.dumps([asdict(system) for kind in kinds for system in systems(kind)], indent=2))
        return 0
    for kind in kinds:
        found = systems(kind)
        print(f"{kind}\n{table(found)}" if found else _none(kind))
    return 0


def _none(kind: str) -> str:
    return f"There are no {kind} yet."


def _source(about: About, *, link: bool = False) -> str:
    parts = [about.authors, about.venue]
    if about.arxiv is not None:
        number = about.arxiv
        parts.append(f"[arXiv {number}](https://arxiv.org/abs/{number})" if link else f"arXiv {number}")
    return "; ".join(parts)


def _named(system: System) -> str:
    """The name, and below it the sizes, for a cell of a table."""
    sizes = (
        f"<br>`{name}`" + ("" if parameters is None else f" {parameters:,}")
        for name, parameters in system.sizes.items()
    )
    return f"`{system.name}`" + "".join(sizes)
