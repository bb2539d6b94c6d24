"""How figures are taken: gate and memory, turns A B C A B C, median; docs/benchmarking.md tells why."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

from qna._core.errors import InvalidInput, MissingExtra
from qna.bench.measure.gate import WrongOutput

T = TypeVar("T")


class Provider(Protocol):
    """What is measured: a contender in this process, or one that answers from another."""

    name: str
    case: str
    threads: int

    @property
    def apart(self) -> bool:
        """Whether another process answers `peak`, at any time and to any thread."""
        ...

    @property
    def extra(self) -> dict[str, Any]:
        """Notes for the row."""
        ...

    def refuses(self, mode: str, /) -> str | None:
        """Why it cannot run in this mode, or None."""
        ...

    def verify(self, mode: str) -> None:
        """Hold it to its definition; raises `WrongOutput`."""
        ...

    def time(self, mode: str, calls: int) -> list[float]:
        """Seconds of each of `calls` calls."""
        ...

    def peak(self, mode: str) -> int | None:
        """Bytes that one call needs above what stands before it; None where that cannot be told."""
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...


@dataclass(frozen=True)
class Plan:
    """How long to measure.

    Attributes:
        seconds: time to spend on the calls of one provider in one mode.
        turns: into how many turns they are divided.
        least: calls at least, unless one alone is above `patience`.
        patience: seconds of one call above which a provider is called once only; above half of it, it is
            left out of further modes.
        memory: whether to take the peak memory.
    """

    seconds: float = 0.2
    turns: int = 5
    least: int = 3
    patience: float = 1.0
    memory: bool = True


@dataclass
class Measurement:
    """What one provider did in one mode.

    Attributes:
        case: what was asked.
        provider: its name.
        mode: forward, forward+backward or step.
        threads: CPU threads.
        seconds: of each call; empty if it was refused.
        peak: bytes above the standing tensors, if taken.
        reason: why there is no time, or no memory.
        extra: the provider's notes.
    """

    case: str
    provider: str
    mode: str
    threads: int
    seconds: list[float] = field(default_factory=list)
    peak: int | None = None
    reason: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def spread(self) -> tuple[float, float, float]:
        """Median, 20th and 80th percentile of the seconds."""
        return percentiles(self.seconds)


def measure(
    providers: Sequence[Provider],
    modes: Sequence[str],
    plan: Plan,
    *,
    progress: Callable[[str], None] = lambda what: None,
) -> list[Measurement]:
    """Measure every provider in every mode; each mode's calls are interleaved.

    One outcome per provider and mode. A provider that refuses, differs from its definition or fails has a
    reason and no time.
    """
    outcomes = []
    spent: dict[Provider, str] = {}  # those that one mode already found too slow or wrong
    for mode in modes:
        asked = [
            (p, Measurement(p.case, p.name, mode, p.threads, reason=spent.get(p) or p.refuses(mode)))
            for p in providers
        ]
        outcomes += [outcome for _, outcome in asked]
        tried = [(provider, outcome) for provider, outcome in asked if outcome.reason is None]
        memory = _gate_and_memory(tried, mode, plan, progress)
        running: list[tuple[Provider, Measurement, float]] = []
        for provider, outcome in tried:
            first = _first_call(provider, mode, outcome)
            if outcome.reason is not None:
                spent[provider] = outcome.reason
            elif first > plan.patience:
                outcome.seconds = [first]
            else:
                running.append((provider, outcome, first))
            # a backward takes a few times as long as the forward
            if first > plan.patience / 2:
                limit = f"above half of --patience {plan.patience:g}"
                spent[provider] = f"no more than {mode}: one took {first:.1f} s, {limit}"
        _take_turns(running, mode, plan, progress)
        for provider, outcome in tried:
            if outcome.seconds and provider in memory:
                outcome.peak, outcome.reason = memory[provider]
    return outcomes


def percentiles(values: Iterable[float]) -> tuple[float, float, float]:
    """Median, 20th and 80th percentile."""
    values = sorted(values)
    if len(values) == 1:
        return values[0], values[0], values[0]
    fifths = statistics.quantiles(values, n=5, method="inclusive")
    return statistics.median(values), fifths[0], fifths[3]


def _gate_and_memory(
    tried: list[tuple[Provider, Measurement]], mode: str, plan: Plan, progress: Callable[[str], None]
) -> dict[Provider, tuple[int | None, str | None]]:
    """Verify all, first to last, and take memory, last to first where another process does it meanwhile.

    Nothing of this is timed. It goes from both ends so that what both compile is compiled by one of them and
    found in the compiler's cache by the other.

    Returns:
        bytes, or the reason for none, of all that passed.
    """
    meanwhile = ThreadPoolExecutor(1)
    try:
        apart = [p for p, _ in reversed(tried) if plan.memory and p.apart]
        found = {p: meanwhile.submit(_peak, p, mode) for p in apart}
        for provider, outcome in tried:
            progress(f"{provider.name}, {mode}: equality")
            _attempt(outcome, partial(provider.verify, mode))
            if outcome.reason is not None and provider in found:
                found[provider].cancel()
        wait(found.values())
    finally:
        meanwhile.shutdown(cancel_futures=True)
    memory = {p: answer.result() for p, answer in found.items() if not answer.cancelled()}
    for provider, outcome in tried:
        if plan.memory and outcome.reason is None:
            progress(f"{provider.name}, {mode}: memory")
            # what failed beside another may have room alone
            if provider not in memory or memory[provider][1] is not None:
                memory[provider] = _peak(provider, mode)
    return memory


def _first_call(provider: Provider, mode: str, outcome: Measurement) -> float:
    """Seconds of a call; 0 and a reason in the outcome where there is none."""
    seconds = _attempt(outcome, partial(provider.time, mode, 1)) if outcome.reason is None else None
    outcome.extra = dict(provider.extra)
    return seconds[0] if seconds else 0.0


def _attempt(outcome: Measurement, what: Callable[[], T]) -> T | None:
    """What it returns; or None, and why in the outcome."""
    try:
        return what()
    except WrongOutput as error:
        outcome.reason = f"WRONG: {error}"
    except (InvalidInput, MissingExtra):
        raise
    except Exception as error:
        # whatever a peer's own code raises is a finding about the peer, and the others go on
        outcome.reason = _first_line(error)
    return None


def _peak(provider: Provider, mode: str) -> tuple[int | None, str | None]:
    try:
        return provider.peak(mode), None
    except RuntimeError as error:
        return None, f"no memory figure: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no text').splitlines()[0][:160]}"


def _take_turns(
    running: list[tuple[Provider, Measurement, float]], mode: str, plan: Plan, progress: Callable[[str], None]
) -> None:
    """Turns A B C A B C: what disturbs the machine for a while disturbs all alike."""
    calls = [max(plan.least, round(plan.seconds / max(first, 1e-6))) for _, _, first in running]
    share = [min(200, -(-n // plan.turns)) for n in calls]
    for turn in range(plan.turns):
        progress(f"{mode}: turn {turn + 1} of {plan.turns}")
        for (provider, outcome, _), n, per_turn in zip(running, calls, share, strict=True):
            due = min(per_turn, n - len(outcome.seconds))
            if due > 0 and outcome.reason is None:
                # what failed in one turn has no time of others: it may be that of another state
                taken = _attempt(outcome, partial(provider.time, mode, due))
                outcome.seconds = [] if taken is None else outcome.seconds + taken
