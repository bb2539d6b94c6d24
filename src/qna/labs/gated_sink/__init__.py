"""Whether gates on the heads' output take away attention sinks and large activations."""

from __future__ import annotations

from dataclasses import replace

from qna.adapters import ADAPTERS
from qna.labs.gated_sink.config import GatedSinkConfig
from qna.labs.gated_sink.picture import draw
from qna.labs.gated_sink.training import train_all
from qna.labs.gated_sink.verdict import EXAMPLES, RULE, verdict
from qna.labs.paired import parts_of
from qna.labs.row import Lab, LabFolder, Metrics


def run(config: GatedSinkConfig, folder: LabFolder) -> Metrics:
    """A part for each seed, in which every network is trained."""
    return folder.measured(parts_of(config, train_all))


LAB = Lab(
    name="gated-sink",
    about=replace(
        ADAPTERS["gated"].about,
        differs="the paper trains language models of 15 billion parameters; these are vision transformers of "
        "six blocks on small images, whose first token is the class token",
    ),
    claim="With a gate after each head's output, computed from the input, the first token gets hardly any of "
    "the attention (0.467 of it falls to 0.048) and the largest activation is a tenth (1053 falls to 94), "
    "while the model gets better (the paper's table).",
    control="The same network without gates. Beside it a gate for each head, and gates that are parameters "
    "and do not depend on the input, which the paper finds weaker. Images, order, rates, epochs and the "
    "draws of what networks share are the same.",
    rule=RULE,
    config=GatedSinkConfig,
    tiny=GatedSinkConfig(
        data="digits", images=64, held_out=32, dim=16, depth=2, patch_size=2, epochs=1, seeds=2
    ),
    run=run,
    verdict=verdict,
    examples=EXAMPLES,
    picture=draw,
)
