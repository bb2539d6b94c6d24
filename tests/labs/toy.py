"""A laboratory as anybody would write one: a row, a configuration, and two functions."""

from dataclasses import dataclass
from functools import partial

from qna._core.about import About
from qna._core.seeds import derive_seed
from qna.labs.row import Figure, Lab, Verdict


@dataclass(frozen=True)
class ToyConfig:
    """Rolls dice.

    Attributes:
        rolls: how many parts.
        sides: of the die of the claim.
        loaded: whether the control is loaded.
        minutes: the budget.
        seed: of the dice.
    """

    rolls: int = 3
    sides: tuple[int, ...] = (6,)
    loaded: bool = False
    minutes: float = 1.0
    seed: int = 0


def roll(config, number):
    ours = derive_seed(config.seed, number, "ours") % sum(config.sides)
    control = sum(config.sides) if config.loaded else derive_seed(config.seed, number, "control") % 3
    return [
        Figure(f"roll-{number}", name, "none", "eyes", "1", value)
        for name, value in (("ours", ours), ("control", control))
    ]


def verdict(metrics):
    pairs = [[c.get(name, {}).get("none eyes") for name in ("ours", "control")] for c in metrics.values()]
    wins = sum(ours > control for ours, control in pairs if None not in (ours, control))
    word = "held" if 0 < wins == len(metrics) else "direction only" if 2 * wins > len(metrics) else "not seen"
    return Verdict(word, f"{wins} of {len(metrics)} rolls won.")


def case(ours, control):
    return {"ours": {"none eyes": ours}, "control": {"none eyes": control}}


TOY = Lab(
    name="toy-dice",
    about=About("On Dice", "A. Toy, B. Toy", "Toys 2001", None, "nothing", "", "formula"),
    claim="More sides win.",
    control="A die with three sides.",
    rule="Held when all rolls win.",
    config=ToyConfig,
    tiny=ToyConfig(rolls=2),
    run=lambda config, folder: folder.measured(
        {f"roll {n}": partial(roll, config, n) for n in range(config.rolls)}
    ),
    verdict=verdict,
    examples={
        "held": {"roll-0": case(5, 1)},
        "direction only": {"roll-0": case(5, 1), "roll-1": case(4, 1), "roll-2": case(0, 1)},
        "not seen": {"roll-0": case(0, 1)},
    },
)
