"""Plain callables side by side: for who has calls to compare, and no providers, sizes or definitions.

By the same method as everything else here: turns A B C A B C, every call timed by itself, memory of a second
call. Whether the calls compute what they shall is the caller's to check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from qna._core.allocator import keep_freed_blocks
from qna._core.errors import InvalidInput
from qna.bench.measure import memory
from qna.bench.measure.contender import FORWARD
from qna.bench.measure.harness import Plan, measure, percentiles
from qna.bench.measure.local import LocalProvider
from qna.bench.measure.machine import Stamp, keeping_to

Call = Callable[[], object]


@dataclass(frozen=True)
class CallTimes:
    """Seconds of calls that took turns on one machine.

    Attributes:
        seconds: of each call that counted, by name; one alone where a call is above the plan's patience.
        threads: CPU threads, each with a core of its own.
        stamp: device, versions, commit and date.
    """

    seconds: Mapping[str, tuple[float, ...]]
    threads: int
    stamp: Stamp

    def spread(self, name: str) -> tuple[float, float, float]:
        """Median, 20th and 80th percentile of the seconds."""
        return percentiles(self.seconds[name])

    @property
    def medians(self) -> dict[str, float]:
        """Median seconds by name."""
        return {name: self.spread(name)[0] for name in self.seconds}


def time_calls(
    calls: Mapping[str, Call], *, plan: Plan | None = None, threads: int = 1, device: str = "cpu"
) -> CallTimes:
    """Time calls in turns, so that what disturbs the machine for a while disturbs all alike.

    Meanwhile this process keeps to `threads` cores, and from then on to the memory that it frees.

    Args:
        calls: what to time, by name; each is called a few times before it counts.
        plan: how long; its memory is not asked for here.
        threads: CPU threads.
        device: "cpu", or "cuda" for calls whose work is on a GPU, which are timed by events on the stream.

    Raises:
        InvalidInput: no calls, or one of them raised; its words are in the text.
    """
    if not calls:
        raise InvalidInput("time_calls needs one call at least, got none")
    stamp = Stamp.now(device)
    providers = [
        LocalProvider(
            name, "calls", partial(CallWork, call, torch.device(device)), threads, pinned=device == "cpu"
        )
        for name, call in calls.items()
    ]
    keep_freed_blocks()
    with keeping_to(threads):
        outcomes = measure(providers, (FORWARD,), replace(plan or Plan(), memory=False))
    for outcome in outcomes:
        if outcome.reason is not None:
            raise InvalidInput(f"{outcome.provider} cannot be timed: {outcome.reason}")
    return CallTimes({o.provider: tuple(o.seconds) for o in outcomes}, threads, stamp)


def peaks_of_calls(calls: Mapping[str, Call], *, device: str = "cpu") -> dict[str, int]:
    """Bytes by name that a call needs at its worst moment above what stands before it, results included.

    On CPU each name gets a process of its own, forked from this one, with one thread; there it is called
    once to settle, and measured at its second call. What a call changes stays there. On a GPU it is called
    here, and the allocator tells.

    Raises:
        InvalidInput: this system's CPU memory cannot be told, or a call raised; its words are in the text.
    """
    if device == "cpu" and (reason := memory.cannot_probe()):
        raise InvalidInput(reason)
    found = {}
    for name, call in calls.items():
        try:
            found[name] = memory.peak_on_gpu(call) if device != "cpu" else _peak_in_fork(call)
        except RuntimeError as error:
            raise InvalidInput(f"memory of {name} cannot be told: {error}") from error
    return found


def _peak_in_fork(call: Call) -> int:
    def made() -> Call:
        torch.set_num_threads(1)  # a forked process has none of the threads that its parent's pool counts on
        return call

    return memory.peak_in_fork(made)


@dataclass
class CallWork:
    """A call as work: the same in every mode, and nothing to hold it to."""

    run: Call
    device: torch.device
    extra: dict[str, Any] = field(default_factory=dict)
    recordable = False

    def verify(self, mode: str) -> None:
        """The caller's to check."""

    def call(self, mode: str) -> Call:
        """The call."""
        return self.run
