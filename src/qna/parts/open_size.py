"""Sizes in a graph that is recorded for maps of any size."""

from __future__ import annotations


def is_open(size: object) -> bool:
    """Whether a graph is recorded in which this size may be another: recorders then give no integer."""
    return type(size) is not int
