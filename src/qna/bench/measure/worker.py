"""A process that measures another version of qna with this version's benchmark code.

Run by path with the folder that holds the other version's package, and the module of this version that makes
work from questions: ``python worker.py FOLDER MODULE``. That module has ``make(question)`` and
``call(question)``; it and what it imports may name of qna only what both versions have.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any


def main(folder: str, module: str) -> None:
    """Serve "ready", "verify", "time" and "peak"."""
    graft(Path(folder))
    memory = importlib.import_module("qna.bench.measure.memory")
    subjects = importlib.import_module(module)
    local = importlib.import_module("qna.bench.measure.local")
    lines = importlib.import_module("qna.bench.measure.lines")
    provider: Any = None
    asked: dict[str, Any] = {}

    def provider_of(question: dict[str, Any]) -> Any:
        """The provider of a question; one at a time is held."""
        nonlocal provider, asked
        if question != asked:
            provider = None  # let go of the tensors first
            pinned = question["setting"]["device"] == "cpu"
            provider = local.LocalProvider(
                "", "", lambda: subjects.make(question), question["threads"], pinned=pinned
            )
            asked = question
        return provider

    def peak(question: dict[str, Any], mode: str) -> int:
        measure = memory.peak_on_cpu if question["setting"]["device"] == "cpu" else memory.peak_on_gpu
        return measure(subjects.call({**question, "mode": mode}))

    lines.answer(
        {
            "ready": lambda: True,
            "verify": lambda question, mode: provider_of(question).verify(mode),
            "time": lambda question, mode, calls: provider_of(question).time(mode, calls),
            "peak": peak,
        }
    )


def graft(folder: Path) -> None:
    """Import qna from `folder`, and `qna.bench` from around this file."""
    # an editable install of this version would answer before the path is asked
    sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in _module_of(finder)]
    here = Path(__file__).parents[1]
    sys.path[:] = [str(folder), *(p for p in sys.path if p and Path(p) != Path(__file__).parent)]
    package = importlib.import_module("qna")
    if not Path(str(package.__file__)).is_relative_to(folder):
        raise ImportError(f"qna came from {package.__file__}, not from {folder}")
    spec = importlib.util.spec_from_file_location(
        "qna.bench", here / "__init__.py", submodule_search_locations=[str(here)]
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["qna.bench"] = module
    spec.loader.exec_module(module)


def _module_of(finder: object) -> str:
    owner = finder if isinstance(finder, type) else type(finder)
    return owner.__module__.lower()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
