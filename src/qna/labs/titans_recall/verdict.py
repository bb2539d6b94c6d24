"""When memories recalled what windows and sums did not: the rule, on figures alone."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean

from qna.labs import paired
from qna.labs.paired import BySeed
from qna.labs.row import Metrics, Verdict, Word
from qna.labs.titans_recall.networks import (
    ALONE,
    CONTROLS,
    DEEP,
    FULL,
    GATE,
    LESS,
    MEMORIES,
    NETWORKS,
    RECALL,
    TASKS,
    WINDOW,
)
from qna.labs.titans_recall.training import case_at

RIGHT = "train right"
# what full attention has to get right at the length of training for a task to be judged
LEARNED = 90.0
RULE = (
    f"By right answers. Of each task {FULL} must get {LEARNED:.0f} % right at the length of training in the "
    "mean over the seeds: where it does not, networks have not learned, and nothing is seen. Held: in both "
    f"tasks, at the length of training and at the longest, {', '.join(MEMORIES)} are each above "
    f"{' and above '.join(CONTROLS)} by more than two standard errors of the mean difference over the seeds; "
    f"and in the mean over both tasks and all lengths {ALONE} is above itself {' and '.join(LESS)}. "
    f"Direction only: in recall at the longest length {ALONE} is above both controls in the mean, and {GATE} "
    f"above {WINDOW}. Else not seen. A memory of {DEEP} is told and does not count."
)


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    times = times_in(metrics)
    last = max(times, default=1)
    found = {(task, n): at(metrics, task, n) for task in TASKS for n in times}
    gains = {
        (task, n, ours, other): paired.gain(best, ours, other)
        for (task, n), best in found.items()
        for ours in MEMORIES
        for other in CONTROLS
    }
    learned = [mean(found[task, 1][FULL].values()) for task in TASKS if FULL in found.get((task, 1), {})]
    judged = {other: gains.get((RECALL, last, ALONE, other)) for other in CONTROLS}
    if len(learned) < len(TASKS) or None in judged.values():
        return Verdict("not seen", "Figures of both tasks over 2 seeds are missing.")
    less = {name: _above(found, name) for name in (*LESS, DEEP)}
    word: Word = "not seen"
    directions = [*judged.values(), gains[RECALL, last, GATE, WINDOW]]
    if min(learned) >= LEARNED and all(gain is not None and gain[0] > 0 for gain in directions):
        asked = [
            gains[task, n, ours, of]
            for task in TASKS
            for n in (1, last)
            for ours in MEMORIES
            for of in CONTROLS
        ]
        sure = all(gain is not None and gain[0] > 2 * gain[1] for gain in asked)
        word = "held" if sure and all((less[name] or 0) > 0 for name in LESS) else "direction only"
    return Verdict(word, _told(found, times, judged, less))


def _told(
    found: Mapping[tuple[str, int], BySeed],
    times: list[int],
    judged: Mapping[str, tuple[float, float] | None],
    less: Mapping[str, float | None],
) -> str:
    tasks = []
    for task in TASKS:
        by_name = "; ".join(
            f"{name} {', '.join(f'{mean(found[task, n][name].values()):.0f}' for n in times)}"
            for name in NETWORKS
            if all(name in found[task, n] for n in times)
        )
        tasks.append(f"of {task}: {by_name}")
    lengths = " and ".join("the length of training" if n == 1 else f"{n} times it" for n in times)
    seeds = len(found[RECALL, max(times)][ALONE])
    gains = " and ".join(
        f"{gain[0]:+.1f} above {other} (standard error {gain[1]:.1f})"
        for other, gain in judged.items()
        if gain is not None
    )
    parts = ", ".join(f"{name} {value:+.1f}" for name, value in less.items() if value is not None)
    return (
        f"Right at {lengths}, %, {'. '.join(tasks)}. In recall at the longest {ALONE} is {gains}, {seeds} "
        f"seeds. In the mean over tasks and lengths it is above itself by so much: {parts}."
    )


def _above(found: Mapping[tuple[str, int], BySeed], name: str) -> float | None:
    gains = [paired.gain(best, ALONE, name) for best in found.values()]
    known = [gain[0] for gain in gains if gain is not None]
    return mean(known) if len(known) == len(gains) else None


def at(metrics: Metrics, task: str, times: int) -> BySeed:
    """Right answers by seed of each contender in a task at so many lengths of training."""
    start = f"{task}-x{times}-"
    cases = {case: found for case, found in metrics.items() if case.startswith(start)}
    return paired.best_of(cases, NETWORKS, RIGHT)


def times_in(metrics: Metrics) -> list[int]:
    """The lengths that there are figures of, in lengths of training."""
    return sorted({int(case.partition("-x")[2].partition("-")[0]) for case in metrics if "-x" in case})


def made_up(
    *, full: float = 99.0, memory: float = 95.0, needle: float = 95.0, gate: float = 0.0, less: float = -3.0
) -> Metrics:
    """Metrics of two seeds: controls 20 % right, `gate` and what has less so much above memory alone."""
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for seed, noise in enumerate((-0.5, 0.5)):
        for times in (1, 4):
            for task, high in zip(TASKS, (memory, needle), strict=True):
                values = dict.fromkeys(NETWORKS, high + noise)
                values |= dict.fromkeys(CONTROLS, 20.0) | {FULL: full, GATE: high + gate + noise}
                values |= dict.fromkeys(LESS, high + less + noise)
                case = case_at(task, times, seed, 3e-3)
                metrics[case] = {name: {RIGHT: value} for name, value in values.items()}
    return metrics


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(),
    "direction only": made_up(less=1.0),
    "not seen": made_up(full=50.0),
}
