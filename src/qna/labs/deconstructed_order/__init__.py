"""Which parts of attention a small decoder can do without, in all of its layers or in every other one."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from qna.labs.deconstructed_order.config import DeconstructedOrderConfig
from qna.labs.deconstructed_order.picture import draw
from qna.labs.deconstructed_order.training import TASKS, train_all
from qna.labs.deconstructed_order.verdict import EXAMPLES, RULE, verdict
from qna.labs.row import Lab, LabFolder, Metrics
from qna.mixers import MIXERS


def run(config: DeconstructedOrderConfig, folder: LabFolder) -> Metrics:
    """A part for each seed and task, in which every decoder is trained."""
    return folder.measured(
        {
            f"{task}, seed {seed}": partial(train_all, config, task, seed)
            for seed in range(config.seed, config.seed + config.seeds)
            for task in TASKS
        }
    )


LAB = Lab(
    name="deconstructed-order",
    about=replace(
        MIXERS["KeyOnlyAttention1d"].about,
        differs="the paper trains 70 to 1,700 million parameters on 15 billion tokens of text and more; "
        "these decoders have a hundred thousand, of four layers, and see less than a million bytes, or "
        "sequences that ask what followed a marker",
    ),
    claim="In every layer, standard attention is best, then Approximate, FixedSeqQK and StaticEmbQK, then "
    "RndEmbQK, and Non-approximate and MLP are far behind (Wikitext perplexity 38.1; 47.9, 79.1, 79.9; 84.8; "
    "90,000 and 993.5). In odd layers alone, with standard attention in the even ones, all are close to "
    "standard (38.5 to 45.8), and none works when its odd layers are removed (table 1, 500 million "
    "parameters).",
    control="Standard attention in all layers, and a gated MLP in its place, which mixes nothing; every "
    "variant may be above the one and below the other. All have as many parameters, the same data in "
    "the same order and one learning rate.",
    rule=RULE,
    config=DeconstructedOrderConfig,
    tiny=DeconstructedOrderConfig(
        dim=24,
        depth=2,
        text_bytes=20_000,
        context=16,
        text_steps=1,
        text_batch=2,
        length=8,
        induction_steps=1,
        induction_batch=2,
        judged=4,
        looked_at=2,
        seeds=1,
    ),
    run=run,
    verdict=verdict,
    examples=EXAMPLES,
    picture=draw,
)
