"""Training on prompts that are drawn anew in every step, and judging beside closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from qna._core.errors import InvalidInput
from qna._core.seeds import derive_seed, seeded
from qna.labs.icl_regression import closed_forms as forms
from qna.labs.icl_regression.attention import MEAN, SOFTMAX, SUM, InContextAttention
from qna.labs.icl_regression.config import IclRegressionConfig
from qna.labs.icl_regression.prompts import Regression
from qna.labs.row import Figure

ONE, TWO, FOUR = "1-head", "2-heads", "4-heads"
LINEAR_MEAN, LINEAR_SUM = "linear-mean", "linear-sum"
DEBIASED, PLAIN_STEP, SINGLE, BAYES = "debiased-step", "plain-step", "best-single-head", "ridge"
WHITENED, THREE = "whitened-step", "3-heads"
LOSS = "none loss"
WARM_UP = 40

Answer = Callable[[Tensor, Tensor], Tensor]
# name -> heads and kind
CONTENDERS: Mapping[str, tuple[int, str]] = {
    TWO: (2, SOFTMAX),
    ONE: (1, SOFTMAX),
    FOUR: (4, SOFTMAX),
    LINEAR_MEAN: (2, MEAN),
    LINEAR_SUM: (2, SUM),
}


def independent(config: IclRegressionConfig, seed: int) -> list[Figure]:
    """Independent covariates and one task: every contender, at every length, and what its heads learned."""
    data = config.plain()
    trained = {name: train(config, data, *CONTENDERS[name], seed) for name in CONTENDERS}
    answers: dict[str, Callable[[int], Answer]] = {name: _always(net) for name, net in trained.items()}
    for name, debiased in ((DEBIASED, True), (PLAIN_STEP, False)):
        answers[name] = partial(_step, config, debiased)
    answers[SINGLE] = partial(_single, config)
    answers[BAYES] = _always(partial(forms.ridge, noise=config.noise))
    figures = []
    for length in (config.length, *config.lengths):
        figures += judge(config, data, case_of("independent", seed, length), answers)
    for name, network in trained.items():
        whole = name == TWO and seed == config.seed
        figures += pattern(network, case_of("independent", seed, config.length), name, whole=whole)
    return figures


def correlated(config: IclRegressionConfig, seed: int) -> list[Figure]:
    """Correlated covariates: two heads beside a step that the covariance preconditions, and one without."""
    data = config.correlated()
    network = train(config, data, 2, SOFTMAX, seed)
    whitened = partial(
        forms.one_step,
        rate=forms.best_rate(config.dim, config.length, config.noise),
        whitened_by=data.covariance,
    )
    answers = {
        TWO: _always(network),
        WHITENED: _always(whitened),
        DEBIASED: _always(_best_plain_step(config, data, seed)),
        BAYES: _always(partial(forms.ridge, noise=config.noise)),
    }
    case = case_of("correlated", seed, config.length)
    figures = judge(config, data, case, answers)
    form = torch.linalg.inv(data.covariance)
    return figures + pattern(network, case, TWO, whole=seed == config.seed, form=form)


def two_tasks(config: IclRegressionConfig, seed: int) -> list[Figure]:
    """Two tasks at once, by one to four heads."""
    data = config.two_tasks()
    heads = {ONE: 1, TWO: 2, THREE: 3, FOUR: 4}
    trained = {name: train(config, data, number, SOFTMAX, seed) for name, number in heads.items()}
    answers = {name: _always(network) for name, network in trained.items()}
    case = case_of("two-tasks", seed, config.length)
    figures = judge(config, data, case, answers)
    for name, network in trained.items():
        figures += pattern(network, case, name, whole=False)
    return figures


def case_of(what: str, seed: int, length: int) -> str:
    """The case of a setting, a seed and a length; `seed_and_length` reads it back."""
    return f"{what}-seed{seed}-examples{length}"


def seed_and_length(case: str) -> tuple[int, int]:
    """Seed and examples of a case."""
    seed, length = case.split("-seed")[1].split("-examples")
    return int(seed), int(length)


def train(
    config: IclRegressionConfig, data: Regression, heads: int, kind: str, seed: int
) -> InContextAttention:
    """Attention that has seen `steps` batches of prompts; all contenders see the same ones.

    Of `starts` initialisations each is trained for a tenth of the steps, and the one with the lowest error on
    prompts that are not judged goes on.
    """
    tokens, query, answer = data.draw(config.judged, config.length, derive_seed(seed, "fitted"))
    best, lowest, first = None, math.inf, math.ceil(config.steps / 10)
    for start in range(config.starts):
        with seeded(derive_seed(seed, "network", start)):
            network = InContextAttention(data.width, heads, len(data.seen), kind=kind, examples=config.length)
        optimizer = torch.optim.Adam(network.parameters())
        _steps(config, data, network, optimizer, steps=range(first), seed=seed)
        with torch.no_grad():
            error = mse_loss(network(tokens, query), answer).item()
        if error < lowest:
            best, lowest = (network, optimizer), error
    if best is None:
        raise InvalidInput(f"none of {config.starts} starts has a finite error after a tenth of the steps")
    _steps(config, data, *best, steps=range(first, config.steps), seed=seed)
    return best[0].requires_grad_(False)


def _steps(
    config: IclRegressionConfig,
    data: Regression,
    network: InContextAttention,
    optimizer: torch.optim.Optimizer,
    *,
    steps: range,
    seed: int,
) -> None:
    warm = max(1, config.steps // WARM_UP)
    for step in steps:
        progress = step / config.steps
        for group in optimizer.param_groups:
            group["lr"] = config.rate * min(1, (step + 1) / warm) * (1 + math.cos(math.pi * progress)) / 2
        tokens, query, answer = data.draw(config.batch, config.length, derive_seed(seed, "prompts", step))
        loss = mse_loss(network(tokens, query), answer)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()


def judge(
    config: IclRegressionConfig,
    data: Regression,
    case: str,
    answers: Mapping[str, Callable[[int], Answer]],
) -> list[Figure]:
    """Mean squared error of every answer on the same prompts, drawn for judging alone."""
    seed, length = seed_and_length(case)
    tokens, query, answer = data.draw(config.judged, length, derive_seed(seed, "judged", length))
    about = {"examples": length, "dim": config.dim, "noise": config.noise, "prompts": config.judged}
    return [
        Figure(
            case, name, "none", "loss", "squared error",
            mse_loss(of_length(length)(tokens, query), answer).item(), extra=about,
        )
        for name, of_length in answers.items()
    ]  # fmt: skip


def pattern(
    network: InContextAttention, case: str, name: str, *, whole: bool, form: Tensor | None = None
) -> list[Figure]:
    """How near the heads are to the pattern: KQ a multiple of `form`, OV the answers alone, their sum 0.

    Args:
        network: trained.
        case: of its figures.
        name: of the contender.
        whole: give every entry of its matrices as well.
        form: (d, d) that every KQ is held to on the covariates; the unit matrix by default.
    """
    dim = network.width - network.outputs
    # a query's answer is 0, so what would meet it is as it was drawn
    kq, ov = network.kq()[..., :dim], network.ov()
    unit = torch.eye(dim) if form is None else form.to(kq.dtype)
    unit = unit / unit.norm()
    along = (kq[:, :dim] * unit).sum((1, 2))
    off = (kq.square().sum() - along.square().sum()).clamp(min=0) / kq.square().sum()
    mu = ov[..., dim:]
    values = {
        "kq-off-pattern": ("%", 100 * off.sqrt().item()),
        "ov-off-answers": ("%", 100 * (ov[..., :dim].norm() / ov.norm()).item()),
        "ov-sum": ("%", 100 * (mu.sum(0).abs().sum() / mu.abs().sum()).item()),
        "heads-above-0": ("heads", float((along > 0).sum())),
    }
    figures = [Figure(case, name, "none", what, unit, value) for what, (unit, value) in values.items()]
    if whole:
        for matrix, entries in (("kq", kq), ("ov", ov)):
            for at in torch.cartesian_prod(*map(torch.arange, entries.shape)).tolist():
                place = "-".join(map(str, at))
                figures.append(Figure(case, name, "none", f"{matrix}-{place}", "", entries[tuple(at)].item()))
    return figures


def _always(answer: Answer) -> Callable[[int], Answer]:
    return lambda length: answer


def _step(config: IclRegressionConfig, debiased: bool, length: int) -> Answer:
    rate = forms.best_rate(config.dim, length, config.noise)
    return partial(forms.one_step, rate=rate, debiased=debiased)


def _single(config: IclRegressionConfig, length: int) -> Answer:
    omega, mu = forms.best_single_head(config.dim, length, config.noise)
    return partial(forms.heads_of, omega=omega, mu=mu)


def _best_plain_step(config: IclRegressionConfig, data: Regression, seed: int) -> Answer:
    """A debiased step whose rate is fitted to prompts that are not judged: the best that needs no
    covariance."""
    tokens, query, answer = data.draw(config.judged, config.length, derive_seed(seed, "fitted"))
    unit = forms.one_step(tokens, query, 1.0)
    return partial(forms.one_step, rate=((unit * answer).sum() / unit.square().sum()).item())
