"""Modules of timm, which is optional: imported when a peer is built, never with the list of peers."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType


def timm_module(name: str) -> ModuleType:
    """`name`, a module of timm.

    Raises:
        MissingExtra: timm is not installed.
    """
    # makes timm importable beside a torch for which torchvision's operators are missing
    importlib.import_module("qna.models")
    return importlib.import_module(name)


def without_timm() -> str | None:
    """A sentence if timm is not installed."""
    return None if importlib.util.find_spec("timm") else "needs timm: pip install 'qna[models]'"
