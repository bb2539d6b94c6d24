"""Modules of timm, which is optional: imported when a peer is built, never with the list of peers."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import qna.models  # noqa: F401 - makes timm importable beside a torch without torchvision's operators
from qna._core.errors import require


def timm_module(name: str) -> ModuleType:
    """`name`, a module of timm.

    Raises:
        MissingExtra: timm is not installed.
    """
    return require(name, extra="models", purpose="comparing with timm")


def without_timm() -> str | None:
    """A sentence if timm is not installed."""
    return None if importlib.util.find_spec("timm") else "needs timm: pip install 'qna[models]'"
