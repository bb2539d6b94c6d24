"""What the registry knows of a laboratory, and what one gives back: figures, and a verdict on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from qna._core.about import About

Word = Literal["held", "direction only", "not seen"]
# case -> contender -> "mode metric" -> figure
Metrics = Mapping[str, Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True)
class Figure:
    """One figure of one contender in one case.

    Attributes:
        case: what was asked; all contenders of a case were asked the same, side by side.
        provider: the contender: what the claim is about, or a control.
        mode: "forward", "forward+backward", "train" or "none".
        metric: "time" and "memory" are measured anew in every run; all others follow from the seeds.
        unit: of the three numbers.
        p50: the figure, a median where it was taken several times.
        p20: 20th percentile; None where there is one value.
        p80: 80th percentile.
        extra: sizes and notes, for the row.
    """

    case: str
    provider: str
    mode: str
    metric: str
    unit: str
    p50: float
    p20: float | None = None
    p80: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What a run says about a claim.

    Attributes:
        word: "held", the claim's own figures or order were reached; "direction only", what it claims is there
            but less of it; "not seen".
        figures: one sentence with the figures that decided.
    """

    word: Word
    figures: str


class LabFolder(Protocol):
    """Where a laboratory runs: what it hands its parts to."""

    @property
    def path(self) -> Path:
        """A folder for files of the parts; only their figures are kept for certain."""
        ...

    def measured(self, parts: Mapping[str, Callable[[], list[Figure]]]) -> Metrics:
        """Do the parts that have no figures yet, in order, and return the figures of all."""
        ...


class LabConfig(Protocol):
    """What every configuration has, beside its own fields: a frozen dataclass, all fields with defaults."""

    @property
    def minutes(self) -> float:
        """The budget in CPU minutes; no part is begun when it is spent."""
        ...

    @property
    def seed(self) -> int:
        """Of all random draws."""
        ...


@dataclass(frozen=True)
class Lab:
    """One published claim, tried at a size of minutes beside the control that can win.

    Attributes:
        name: as in `qna lab run`.
        about: the publication.
        claim: what it claims, in our words, and where it does.
        control: what runs beside it and can win.
        rule: how the verdict is found; written down before anything is measured.
        config: the configuration's class.
        tiny: a configuration of seconds, for tests.
        run: does the work in parts and returns ``folder.measured(parts)``.
        verdict: of metrics; a contender or case that is not there is no figure, never an error.
        examples: made-up metrics for each word of a verdict: proof that it can come out either way.
        picture: draws metrics to the path of a PNG, with a note below the title.
    """

    name: str
    about: About
    claim: str
    control: str
    rule: str
    config: type[Any]
    tiny: LabConfig
    run: Callable[[Any, LabFolder], Metrics]
    verdict: Callable[[Metrics], Verdict]
    examples: Mapping[Word, Metrics]
    picture: Callable[[Path, Metrics, str], None] | None = None
