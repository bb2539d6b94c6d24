"""Time of calls on a GPU: replays of a CUDA graph where calls can be recorded in one, else calls by Python.

Python takes longer to start a small kernel than a GPU to run it: events around one call would time Python.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch

# a replay shall take so long that its own launch hides behind the one before it
LEAST_SECONDS = 5e-4
MOST_CALLS = 20
WARM_UP = 3
# what takes longer hides its start by itself, and is not to be called, nor its memory held, for a recording
LONG_SECONDS = 1e-2

Run = Callable[[], object]
Timed = Callable[[Run, int], list[float]]

# a recording that broke off is still known to torch's allocator by its address
_broken: list[torch.cuda.CUDAGraph] = []
_streams: dict[int, torch.cuda.Stream] = {}


@dataclass(frozen=True)
class GpuClock:
    """Times something that stands for a number of calls.

    Attributes:
        run: makes the calls.
        calls: how many.
        extra: for the row: "clock" is "graph" or "eager"; with the calls of one replay, or the reason.
        timed: seconds of each of a number of runs.
    """

    run: Run
    calls: int
    extra: dict[str, Any]
    timed: Timed = field(repr=False)

    def seconds(self, calls: int) -> list[float]:
        """Seconds of one call, from as many runs as make `calls` calls at least."""
        return [s / self.calls for s in self.timed(self.run, max(1, -(-calls // self.calls)))]


def time_by_events(run: Run, calls: int) -> list[float]:
    """Seconds of each run by events on the stream, after one that warms up.

    The GPU is idle before and after.
    """
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(calls + 1)]
    run()
    torch.cuda.synchronize()
    for mark in marks[:-1]:
        mark.record()
        run()
    marks[-1].record()
    torch.cuda.synchronize()
    return [a.elapsed_time(b) / 1e3 for a, b in pairwise(marks)]


def eager_clock(run: Run, timed: Timed = time_by_events) -> GpuClock:
    """Call by call from Python: right where the GPU has more to do than the host."""
    return GpuClock(run, 1, {"clock": "eager"}, timed)


def graph_clock(
    run: Run, *, recorded: Callable[[Run, int], Run] | None = None, timed: Timed = time_by_events
) -> GpuClock:
    """Replays of as many calls as take `LEAST_SECONDS`.

    An eager clock for long calls, and, with the reason, for what cannot be recorded.

    Args:
        run: a call; what it returns is freed before the next, so that a recording holds one result.
        recorded: (run, calls) -> what replays them; default `record`.
        timed: seconds of each of a number of runs.
    """
    recorded = recorded or record
    (once,) = timed(run, 1)
    if once > LONG_SECONDS:
        return eager_clock(run, timed)
    try:
        replay = recorded(run, 1)
        once = min(timed(replay, WARM_UP))
        calls = min(MOST_CALLS, max(1, math.ceil(LEAST_SECONDS / max(once, 1e-9))))
        if calls > 1:
            replay = recorded(run, calls)
    except RuntimeError as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        return GpuClock(run, 1, {"clock": "eager", "not_recorded": why}, timed)
    return GpuClock(replay, calls, {"clock": "graph", "calls_per_replay": calls}, timed)


def record(run: Run, calls: int) -> Run:
    """What replays `calls` calls of `run` on the current stream; holds the memory of one call.

    Raises:
        RuntimeError: a call waits for the GPU, wants more memory than there is, or cannot be recorded.
    """
    run()  # what is settled in the first call may wait for the GPU
    current, graph = torch.cuda.current_stream(), torch.cuda.CUDAGraph()
    if current.device_index not in _streams:
        _streams[current.device_index] = torch.cuda.Stream(current.device_index)
    stream = _streams[current.device_index]
    stream.wait_stream(current)
    # the stream that records warms up too: libraries keep a workspace per stream
    with torch.cuda.stream(stream), _waiting_is_an_error():
        for _ in range(WARM_UP):
            run()
    current.wait_stream(stream)
    try:
        # gradients are computed in a thread of their own, which may ask the driver for anything
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            for _ in range(calls):
                run()
    except BaseException:
        torch.cuda.set_stream(current)  # torch stays on the recording stream if ending the recording fails
        graph.reset()
        _broken.append(graph)
        raise
    return graph.replay


def settle() -> None:
    """Multiply fp32 in fp32, also in convolutions, and let cuDNN measure which algorithm is fastest."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True


@contextmanager
def _waiting_is_an_error() -> Iterator[None]:
    """Inside, operators that wait for the GPU raise: a recording would break at them, and torch with it."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls the mode a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
