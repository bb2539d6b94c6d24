"""Pointing at the corners of convex hulls, beside the same LSTM with a fixed vocabulary of positions."""

from __future__ import annotations

from functools import partial

from qna._core.about import About
from qna.labs.pointer_hull.config import PointerHullConfig
from qna.labs.pointer_hull.controls import FixedVocabulary
from qna.labs.pointer_hull.picture import draw
from qna.labs.pointer_hull.training import contenders, judge, stage, stages
from qna.labs.pointer_hull.verdict import EXAMPLES, RULE, verdict
from qna.labs.row import Lab, LabFolder, Metrics

__all__ = ["LAB", "FixedVocabulary"]


def run(config: PointerHullConfig, folder: LabFolder) -> Metrics:
    """Train each contender in stages, then judge all of them on every number of points."""
    parts = {
        f"{name}, to step {end}": partial(stage, config, name, end, folder.path)
        for name in contenders(config)
        for end in stages(config, name)
    }
    for size in (*config.sizes, *config.unseen):
        parts[f"{size} points"] = partial(judge, config, size, folder.path)
    return folder.measured(parts)


LAB = Lab(
    name="pointer-hull",
    about=About(
        title="Pointer Networks",
        authors="Vinyals, Fortunato, Jaitly",
        venue="NIPS 2015",
        arxiv="1506.03134",
        read="a summary of the paper; its authors published no code",
        differs="128 units, Adam with a cosine and 5 to 10 points in training, instead of 256 or 512 units, "
        "SGD at rate 1 and 5 to 50 points; hulls are named greedily. The Transformer that points is ours. "
        "Attention beside a fixed vocabulary (--attention) does not go into the decoder's next step. In a "
        "first run 6,000 steps left the LSTM that points at 60.1 % of the hulls of 10 points; so all are "
        "trained longer now, by the rule as it stood",
        status="formula",
    ),
    claim="An LSTM that answers by pointing at its inputs names the corners of convex hulls, which the same "
    "LSTM with a fixed vocabulary of positions learns worse, and goes on to more points than it has seen.",
    control="The same encoder and decoder with a fixed vocabulary of positions in the place of the pointer, "
    "on the same problems; with --attention also with attention over the encoder's states.",
    rule=RULE,
    config=PointerHullConfig,
    tiny=PointerHullConfig(
        least=3,
        most=4,
        unseen=(6,),
        dim=8,
        steps=4,
        batch=4,
        transformer_steps=3,
        transformer_batch=4,
        attention=True,
        stages=2,
        judged=6,
    ),
    run=run,
    verdict=verdict,
    examples=EXAMPLES,
    picture=draw,
)
