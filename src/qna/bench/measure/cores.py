"""Which cores this process may use, and keeping to some of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def _allowed() -> tuple[int, ...]:
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


# read at import, before anything pins
CORES = _allowed()


def pin(count: int) -> None:
    """Keep this process to its first `count` cores, where the system can.

    Threads inherit the cores that the process has when they start.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, CORES[:count])


@contextmanager
def all_cores() -> Iterator[None]:
    """Inside, all cores: processes that start there get them."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, CORES)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
