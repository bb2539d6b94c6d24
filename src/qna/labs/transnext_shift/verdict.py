"""When the claim about aggregated attention held: the rule, on figures alone."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import mean

from qna.labs import paired
from qna.labs.paired import BySeed, case_of, seed_and_rate
from qna.labs.row import Metrics, Verdict, Word
from qna.labs.transnext_shift.networks import AGGREGATED, CONTENDERS, SWIN
from qna.labs.transnext_shift.training import ACCURACY, LEARNED

RULE = (
    "Each network counts at the learning rate at which it gets more of the objects right that lie and are as "
    "in training. Of it, the mean over all shifts and the mean over all scales. Held: aggregated attention "
    "is above windows in both means, in each by more than two standard errors of the mean difference over "
    "the seeds, at no more multiply-adds, and as in training not below by more than two standard errors. "
    "Direction only: above in both, at no more of them. Else not seen; so too where at any single shift or "
    "scale it is below by more than two standard errors."
)
KINDS = {"shift": "moved objects", "scale": "other sizes"}


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    by_kind = {kind: best_of(metrics, kind) for kind in KINDS}
    gains = {kind: paired.gain(best, AGGREGATED, SWIN) for kind, best in by_kind.items()}
    if not all(gains.values()):
        return Verdict("not seen", f"Figures of {AGGREGATED} and {SWIN} over 2 seeds are missing.")
    macs = costs(metrics)
    found = [gain for gain in gains.values() if gain is not None]
    as_learned = best_of(metrics, None)
    learned = paired.gain(as_learned, AGGREGATED, SWIN)
    worse = _worse(metrics)
    word: Word = "not seen"
    if (
        not worse
        and all(difference > 0 for difference, _ in found)
        and macs.get(AGGREGATED, 0) <= macs.get(SWIN, 0)
    ):
        behind = learned is not None and learned[0] < -2 * learned[1]
        clear = all(difference > 2 * error for difference, error in found)
        word = "held" if clear and not behind else "direction only"
    told = []
    for (kind, best), (difference, error) in zip(by_kind.items(), found, strict=True):
        each = ", ".join(f"{name} {mean(best[name].values()):.2f} %" for name in CONTENDERS)
        told.append(f"{KINDS[kind]} {each} (difference {difference:+.2f}, standard error {error:.2f})")
    rights = ", ".join(f"{name} {mean(as_learned[name].values()):.2f} %" for name in CONTENDERS)
    told.append(f"as in training {rights}")
    told += [f"behind at {where}" for where in worse]
    cost = ", ".join(f"{name} {macs[name]:.2f}" for name in CONTENDERS if name in macs)
    seeds = len(by_kind["shift"][AGGREGATED])
    return Verdict(word, f"Right, {seeds} seeds: {'; '.join(told)}; million multiply-adds: {cost}.")


def _worse(metrics: Metrics) -> list[str]:
    """Single shifts and scales at which aggregated attention is clearly below."""
    found = []
    for kind in KINDS:
        for name, best in figures_of(metrics, kind).items():
            gain = paired.gain(best, AGGREGATED, SWIN)
            if gain is not None and gain[0] < -2 * gain[1]:
                found.append(f"{kind} {name} (difference {gain[0]:+.2f}, standard error {gain[1]:.2f})")
    return found


def best_of(metrics: Metrics, kind: str | None) -> BySeed:
    """The mean over shifts or scales by seed, or what was learned for None, at each network's rate."""
    best = {}
    for name, by_rate in _learned(metrics).items():
        rate = max(by_rate, key=lambda r: mean(by_rate[r].values()))
        if kind is None:
            best[name] = by_rate[rate]
            continue
        by_seed = {
            seed: _mean_of(metrics[case_of(ACCURACY, seed, rate)][name], kind) for seed in by_rate[rate]
        }
        best[name] = {seed: value for seed, value in by_seed.items() if value is not None}
    return best


def figures_of(metrics: Metrics, kind: str) -> dict[str, BySeed]:
    """By shift or scale, then contender and seed, at each network's rate: what pictures show."""
    names = sorted(
        {
            figure.removeprefix(f"train top1 {kind} ")
            for contenders in metrics.values()
            for figures in contenders.values()
            for figure in figures
            if figure.startswith(f"train top1 {kind} ")
        },
        key=float,
    )
    return {name: best_of(metrics, f"{kind} {name}") for name in names}


def costs(metrics: Metrics) -> dict[str, float]:
    """Multiply-adds of each network."""
    return {
        name: figures["none macs"]
        for contenders in metrics.values()
        for name, figures in contenders.items()
        if "none macs" in figures
    }


def _learned(metrics: Metrics) -> dict[str, dict[float, dict[int, float]]]:
    """Of each network what it gets right as in training, by rate and seed."""
    found: dict[str, dict[float, dict[int, float]]] = {}
    for case, contenders in metrics.items():
        seed, rate = seed_and_rate(case)
        for name in CONTENDERS:
            if (figure := contenders.get(name, {}).get(f"train {LEARNED}")) is not None:
                found.setdefault(name, {}).setdefault(rate, {})[seed] = figure
    return found


def _mean_of(figures: Iterable[str] | dict[str, float], kind: str) -> float | None:
    """Mean over all shifts or scales, or the one that is named."""
    assert isinstance(figures, dict)
    start = f"train top1 {kind}"
    found = [value for name, value in figures.items() if name == start or name.startswith(f"{start} ")]
    return mean(found) if found else None


def made_up(moved: float, resized: float, *, macs: float = 3.0, learned: float = 0.0) -> Metrics:
    """Metrics of two seeds in which aggregated attention is above by so many points +-0.1."""
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for seed, noise in enumerate((-0.1, 0.1)):
        # the other rate is worse for all
        for rate, loss in ((4e-3, 0.0), (8e-3, 5.0)):
            metrics[case_of(ACCURACY, seed, rate)] = {
                name: {
                    f"train {LEARNED}": 80 - loss + ours * (learned + noise),
                    "train top1 shift 4": 60 - loss + ours * (moved + noise),
                    "train top1 shift 8": 50 - loss + ours * (moved + noise),
                    "train top1 scale 2": 70 - loss + ours * (resized + noise),
                    "none macs": macs if ours else 3.0,
                }
                for name, ours in ((AGGREGATED, 1), (SWIN, 0))
            }
    return metrics


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(2.0, 1.0),
    "direction only": made_up(2.0, 0.15),
    "not seen": made_up(2.0, -1.0),
}
