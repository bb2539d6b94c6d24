"""Checks that the configurations of laboratories share."""

from __future__ import annotations

from math import inf
from typing import Any

from qna._core.errors import InvalidInput


def check_counts(config: Any, *names: str) -> None:
    """These fields of a configuration must be at least 1."""
    for name in names:
        if getattr(config, name) < 1:
            raise InvalidInput(f"{name} must be at least 1, got {getattr(config, name)}")


def check_rates(rates: tuple[float, ...]) -> None:
    """There must be learning rates, finite and above 0, none of them twice."""
    if not rates or len(set(rates)) < len(rates) or not all(0 < rate < inf for rate in rates):
        raise InvalidInput(f"rates must be positive and differ, got {rates}")


def check_minutes(minutes: float) -> None:
    """The budget must be above 0."""
    if not minutes > 0:
        raise InvalidInput(f"minutes must be above 0, got {minutes:g}")


def check_multiple(config: Any, name: str, of: int) -> None:
    """This field of a configuration must be a multiple of a number, and above 0."""
    value = getattr(config, name)
    if value < of or value % of:
        raise InvalidInput(f"{name} must be a multiple of {of}, got {value}")
