"""Training of the contenders stage by stage, and what they answer on problems that they have not seen."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch.nn.utils import clip_grad_norm_

from qna._core.errors import InvalidInput
from qna._core.files import write_whole
from qna._core.seeds import derive_seed, seeded
from qna._core.torch_file import read_torch
from qna.data.points import point_problem
from qna.eval.pointing import chosen, score_hulls
from qna.labs.pointer_hull.config import PointerHullConfig
from qna.labs.pointer_hull.controls import FixedVocabulary
from qna.labs.row import Figure
from qna.labs.warmed_cosine import set_rate
from qna.models.pointer import PointerNetwork, PointsAtInputs, TransformerPointer, point

POINTER, TRANSFORMER = "LSTM that points", "Transformer that points"
FIXED, ATTENDED = "LSTM without pointer", "LSTM with attention"
CONTENDERS = (POINTER, TRANSFORMER, FIXED, ATTENDED)
ORACLE = "exact hull"
EXACT, SIMPLE, COVERAGE = "exact", "simple", "coverage"
HULL = point_problem("hull")
# part of the steps, largest norm of a gradient (the paper's), problems that are drawn in the picture
WARM_UP, LARGEST, SHOWN = 40, 2.0, 2


def case_of(what: str, number: int) -> str:
    """The case of a number of points or of steps; `number_of` reads it back."""
    return f"{what}-{number}"


def number_of(case: str, what: str) -> int | None:
    """The number of a case of this kind; None for another."""
    kind, _, number = case.rpartition("-")
    return int(number) if kind == what and number.isdigit() else None


def contenders(config: PointerHullConfig) -> list[str]:
    """Those that a configuration asks for."""
    return [name for name in CONTENDERS if name != ATTENDED or config.attention]


def stages(config: PointerHullConfig, name: str) -> list[int]:
    """The step at which each stage of a contender ends."""
    steps = config.transformer_steps if name == TRANSFORMER else config.steps
    return [steps * (stage + 1) // config.stages for stage in range(config.stages)]


def build(config: PointerHullConfig, name: str) -> PointsAtInputs:
    """A contender before its training."""
    with seeded(derive_seed(config.seed, "network", name)):
        if name == TRANSFORMER:
            return TransformerPointer(dim=config.dim, depth=2, num_heads=4, hidden=2 * config.dim)
        fixed = name in (FIXED, ATTENDED)
        head = FixedVocabulary(config.dim, config.most, attends=name == ATTENDED) if fixed else None
        return PointerNetwork(dim=config.dim, head=head)


class HullLearner:
    """One network in training, all of it a function of configuration and name.

    Args:
        config: of the laboratory.
        name: one of `CONTENDERS`.
        folder: where it is kept between stages.
    """

    def __init__(self, config: PointerHullConfig, name: str, folder: Path):
        self.config, self.name, self.step = config, name, 0
        self.file = folder / f"{name.replace(' ', '-')}.pt"
        transformer = name == TRANSFORMER
        self.steps = stages(config, name)[-1]
        self.rate = config.transformer_rate if transformer else config.rate
        self.batch = config.transformer_batch if transformer else config.batch
        self.network = build(config, name)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=self.rate)
        self._take_up()

    def train_to(self, end: int) -> float:
        """Go on to a step, keep what there is then, and return the mean loss on the way."""
        losses = []
        while self.step < end:
            losses.append(self._step())
        if losses:
            self._keep()
        return sum(losses) / max(len(losses), 1)

    def _step(self) -> float:
        config, step = self.config, self.step
        set_rate(self.optimizer, self.rate, step, self.steps, warm=self.steps // WARM_UP)
        size = config.sizes[step % len(config.sizes)]
        batch = HULL.draw(self.batch, size, derive_seed(config.seed, "hulls", step))
        loss = self.network.loss(batch.points, batch.answers)
        self.optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(self.network.parameters(), LARGEST)
        self.optimizer.step()
        self.step += 1
        return loss.item()

    def _keep(self) -> None:
        kept = {
            "step": self.step,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        write_whole(self.file, lambda path: torch.save(kept, path))

    def _take_up(self) -> None:
        """What a stage before this one left; a file that is gone or damaged costs its time alone."""
        try:
            kept = read_torch(self.file)
            self.network.load_state_dict(kept["network"])
            self.optimizer.load_state_dict(kept["optimizer"])
            self.step = int(kept["step"])
        except FileNotFoundError:
            return


def stage(config: PointerHullConfig, name: str, end: int, folder: Path) -> list[Figure]:
    """Train a contender to a step; its loss, and its exact hulls at the most points of training."""
    contender = HullLearner(config, name, folder)
    if contender.step > end:
        raise InvalidInput(
            f"{contender.file} is ahead of the figures; remove it, and its training is done again"
        )
    loss = contender.train_to(end)
    batch = HULL.draw(config.judged, config.most, derive_seed(config.seed, "followed"))
    found = point(contender.network, batch.points)
    score = score_hulls(batch.points, found.answers, batch.answers)
    case = case_of("stage", stages(config, name).index(end) + 1)
    about = {"points": config.most, "problems": config.judged, "steps": end}
    return [
        Figure(case, name, "train", "loss", "nats", loss, extra=about),
        Figure(case, name, "none", EXACT, "%", 100 * score.exact, extra=about),
    ]


def judge(config: PointerHullConfig, size: int, folder: Path) -> list[Figure]:
    """Every contender on the same problems of one size, drawn for judging alone; a few answers whole."""
    batch = HULL.draw(config.judged, size, derive_seed(config.seed, "judged", size))
    case, about = case_of("points", size), {"points": size, "problems": config.judged}
    answers = {ORACLE: batch.answers}
    for name in contenders(config):
        contender = HullLearner(config, name, folder)
        contender.train_to(contender.steps)
        answers[name] = point(contender.network, batch.points).answers
    figures = []
    for name, found in answers.items():
        score = score_hulls(batch.points, found, batch.answers)
        values = {EXACT: score.exact, SIMPLE: score.simple}
        if not math.isnan(score.coverage):
            values[COVERAGE] = score.coverage
        figures += [
            Figure(case, name, "none", what, "%", 100 * value, extra=about) for what, value in values.items()
        ]
        for sample, answer in enumerate(chosen(found)[:SHOWN]):
            figures += [
                Figure(case, name, "none", f"corner-{sample}-{at}", "point", float(index))
                for at, index in enumerate(answer)
            ]
    for sample, places in enumerate(batch.points[:SHOWN].tolist()):
        for at, place in enumerate(places):
            figures += [
                Figure(case, ORACLE, "none", f"{axis}-{sample}-{at}", "side", value)
                for axis, value in zip("xy", place, strict=True)
            ]
    return figures
