"""When the neighbourhood's context was what it took: the rule, on figures alone."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean

from qna.labs.row import Metrics, Verdict, Word
from qna.labs.sinc_unique_signature.networks import CONTENDERS, GIN, SINC, SIR, SIR_SUM
from qna.labs.sinc_unique_signature.training import (
    ACCURACY,
    PARAMETERS,
    POSITIVE,
    case_of,
    task_of,
)

# what has no neighbourhood in its messages; PNA gets the sum beside the pair, and may be as good
BELOW = (SIR, SIR_SUM, GIN)
ENOUGH, GUESSED = 99.0, 51.0
RULE = (
    f"Judged at the fewest values of features, at every probability of an edge, in every seed. Held: {SINC} "
    f"has a balanced accuracy of {ENOUGH:g} % or more, {SIR} as published, with maxima, of {GUESSED:g} % or "
    f"less, and {SIR_SUM} and {GIN} are below {SINC}. Direction only: {SINC} is above {SIR}, {SIR_SUM} and "
    f"{GIN} at every probability, in the mean over the seeds. Else not seen. What PNA, which the paper finds "
    "as good, GCN and GATv2 get, and all at more values, is told and does not count."
)
# contender -> balanced accuracies, a seed each
Seeds = dict[str, list[float]]


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    tasks = by_task(metrics)
    fewest = min((values for values, _ in tasks), default=0)
    decisive = [seeds for (values, _), seeds in tasks.items() if values == fewest]
    if not decisive or any(name not in seeds for seeds in decisive for name in (SINC, *BELOW)):
        return Verdict("not seen", f"Figures of 1 seed or more of {', '.join((SINC, *BELOW))} are missing.")
    word: Word = "not seen"
    if all(mean(seeds[SINC]) > mean(seeds[name]) for seeds in decisive for name in BELOW):
        word = "held" if all(map(_reached, decisive)) else "direction only"
    counts = _any_of(metrics, PARAMETERS)
    told = [
        f"{values} values: "
        + ", ".join(f"{name} {_of_edges(tasks, values, name)}" for name in CONTENDERS if name in counts)
        for values in sorted({values for values, _ in tasks})
    ]
    shares = "/".join(
        f"{share:.1f}" for (values, _), share in sorted(_positive(metrics).items()) if values == fewest
    )
    sizes = ", ".join(f"{name} {count:.0f}" for name, count in counts.items())
    edges = "/".join(f"{edges:g}" for values, edges in sorted(tasks) if values == fewest)
    return Verdict(
        word,
        f"Balanced accuracy, %, mean of {len(decisive[0][SINC])} seeds, at edges of probability {edges}. "
        f"{'; '.join(told)}. Positive at {fewest} values: {shares} %. Parameters: {sizes}.",
    )


def by_task(metrics: Metrics) -> dict[tuple[int, float], Seeds]:
    """(values, edges) -> contender -> balanced accuracies."""
    found: dict[tuple[int, float], Seeds] = {}
    for case, contenders in metrics.items():
        for name, figures in contenders.items():
            if ACCURACY in figures:
                found.setdefault(task_of(case), {}).setdefault(name, []).append(figures[ACCURACY])
    return found


def _reached(seeds: Seeds) -> bool:
    pairs = zip(*(seeds[name] for name in (SINC, *BELOW)), strict=True)
    return all(ours >= ENOUGH and sir <= GUESSED and max(sums, gin) < ours for ours, sir, sums, gin in pairs)


def _of_edges(tasks: Mapping[tuple[int, float], Seeds], values: int, name: str) -> str:
    every = sorted({edges for _, edges in tasks})
    found = [tasks.get((values, edges), {}).get(name) for edges in every]
    return "/".join(f"{mean(seeds):.1f}" if seeds else "none" for seeds in found)


def _any_of(metrics: Metrics, figure: str) -> dict[str, float]:
    found = {
        name: figures[figure]
        for contenders in metrics.values()
        for name, figures in contenders.items()
        if figure in figures
    }
    return {name: found[name] for name in CONTENDERS if name in found}


def _positive(metrics: Metrics) -> dict[tuple[int, float], float]:
    shares: dict[tuple[int, float], list[float]] = {}
    for case, contenders in metrics.items():
        found = contenders.get(SINC, {})
        if POSITIVE in found:
            shares.setdefault(task_of(case), []).append(found[POSITIVE])
    return {task: mean(of_task) for task, of_task in shares.items()}


def made_up(*, sinc: float = 99.9, sir: float = 50.0, gin: float = 84.0) -> Metrics:
    """Figures of two seeds at two probabilities."""
    accuracies = {SINC: sinc, SIR: sir, SIR_SUM: 80.0, GIN: gin}
    return {
        case_of(3, edges, seed): {
            name: {ACCURACY: accuracy - 0.01 * seed, PARAMETERS: 300.0, POSITIVE: 30.0}
            for name, accuracy in accuracies.items()
        }
        for edges in (0.3, 0.5)
        for seed in range(2)
    }


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(),
    "direction only": made_up(sinc=98.0),
    "not seen": made_up(gin=99.95),
}
