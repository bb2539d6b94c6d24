"""Adapters: what is put around a network that is there already; each a row by name."""

from collections.abc import Mapping
from typing import Any

__all__ = ["ADAPTERS"]

ADAPTERS: Mapping[str, Any] = {}
