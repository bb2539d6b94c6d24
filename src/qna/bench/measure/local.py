"""Work of this process as a provider of times."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from qna.bench.measure import memory
from qna.bench.measure.gpu import GpuClock, eager_clock, graph_clock
from qna.bench.measure.machine import use_threads
from qna.bench.measure.work import Work


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
        pinned: whether this process keeps to as many cores as threads; for work on a GPU it need not.
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
        pinned: bool = True,
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
        self._pinned = pinned
        self._clock = clock
        self._on_gpu: tuple[str, GpuClock] | None = None

    @property
    def extra(self) -> dict[str, Any]:
        """Notes of the work, and on a GPU of its clock."""
        notes = self._work.extra if self._work else {}
        return {**notes, **self._on_gpu[1].extra} if self._on_gpu else notes

    def verify(self, mode: str) -> None:
        """Hold the work to its definition."""
        self._ready(mode).verify(mode)

    def time(self, mode: str, calls: int) -> list[float]:
        """Seconds of each call: by the clock on CPU, by events on a GPU."""
        work = self._ready(mode)
        run = work.call(mode)
        if work.device.type == "cuda":
            if self._on_gpu is None:
                self._on_gpu = (mode, graph_clock(run) if work.recordable else eager_clock(run))
            return self._on_gpu[1].seconds(calls)
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
        work = self._ready(mode)
        return memory.peak_on_gpu(work.call(mode)) if work.device.type == "cuda" else None

    def close(self) -> None:
        """Let go of the tensors, and of what was recorded."""
        self._on_gpu = self._work = None

    def _ready(self, mode: str) -> Work:
        """The work, made at the first question; what was recorded in another mode gives its memory back."""
        if self._pinned:
            use_threads(self.threads)
        if self._on_gpu is not None and self._on_gpu[0] != mode:
            self._on_gpu = None
            torch.cuda.empty_cache()
        self._work = self._work or self._make()
        return self._work
