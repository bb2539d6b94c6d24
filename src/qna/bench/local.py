"""Work of this process as a provider of times."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch

from qna.bench import memory
from qna.bench.machine import use_threads
from qna.bench.work import Work


class LocalProvider:
    """Runs work with a number of threads.

    Args:
        name: for tables.
        case: what it answers; providers of one case are compared.
        work: what runs; a function, called when the provider is first used, so that nothing is built for
            one that refuses.
        threads: CPU threads, each with a core of its own.
        refuses: why it cannot run in a mode, or None.
        probe: peak bytes of a call in a mode, asked of another process; None takes them here, on a GPU.
        clock: seconds; injected by tests.
    """

    def __init__(
        self,
        name: str,
        case: str,
        work: Callable[[], Work],
        threads: int,
        *,
        refuses: Callable[[str], str | None] = lambda mode: None,
        probe: Callable[[str], int] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self.name = name
        self.case = case
        self.threads = threads
        self.refuses = refuses
        self.apart = probe is not None
        self._make = work
        self._work: Work | None = None
        self._probe = probe
        self._clock = clock

    @property
    def extra(self) -> dict[str, Any]:
        """Notes of the work."""
        return self._work.extra if self._work else {}

    def verify(self, mode: str) -> None:
        """Hold the work to its definition."""
        use_threads(self.threads)
        self._work = self._work or self._make()
        self._work.verify(mode)

    def time(self, mode: str, calls: int) -> list[float]:
        """Seconds of each call: by the clock on CPU, by events on a GPU."""
        use_threads(self.threads)
        self._work = self._work or self._make()
        run = self._work.call(mode)
        if self._work.device.type == "cuda":
            return time_on_gpu(run, calls)
        if calls > 1:
            run()  # fills the caches that the provider before emptied
        seconds = []
        for _ in range(calls):
            begin = self._clock()
            run()
            seconds.append(self._clock() - begin)
        return seconds

    def peak(self, mode: str) -> int | None:
        """Bytes above the standing tensors, or None where that cannot be told."""
        if self._probe is not None:
            return self._probe(mode)
        self._work = self._work or self._make()
        return memory.peak_on_gpu(self._work.call(mode)) if self._work.device.type == "cuda" else None

    def close(self) -> None:
        """Let go of the tensors."""
        self._work = None


def time_on_gpu(run: Callable[[], object], calls: int) -> list[float]:
    """Seconds of each call by events on the stream; the device is idle before and after."""
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(calls + 1)]
    run()
    torch.cuda.synchronize()
    for mark in marks[:-1]:
        mark.record()
        run()
    marks[-1].record()
    torch.cuda.synchronize()
    return [a.elapsed_time(b) / 1e3 for a, b in pairwise(marks)]
