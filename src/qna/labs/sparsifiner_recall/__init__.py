"""Whether a cheap estimate of attention knows which keys a query needs."""

from __future__ import annotations

from dataclasses import replace

from qna.adapters import ADAPTERS
from qna.labs.paired import parts_of
from qna.labs.row import Lab, LabFolder, Metrics
from qna.labs.sparsifiner_recall.config import SparsifinerRecallConfig
from qna.labs.sparsifiner_recall.picture import draw
from qna.labs.sparsifiner_recall.training import train_all
from qna.labs.sparsifiner_recall.verdict import EXAMPLES, RULE, verdict


def run(config: SparsifinerRecallConfig, folder: LabFolder) -> Metrics:
    """A part for each seed, in which every network is trained and judged."""
    return folder.measured(parts_of(config, train_all))


LAB = Lab(
    name="sparsifiner-recall",
    about=replace(
        ADAPTERS["sparsifiner"].about,
        differs="the paper starts from DeiT on ImageNet and 197 tokens; this is a vision transformer of four "
        "blocks and 50 tokens, trained here on small images. Its size was set after a look at one seed of a "
        "smaller run, whose dense network had learned too little (49.5 % right); the rule was not changed",
    ),
    claim="From queries and keys a predictor of low rank tells which keys a query needs: with a quarter of "
    "them seen, and half the multiply-adds of attention gone, accuracy falls by at most 0.4 points "
    "(abstract).",
    control="The same trained network, trained on alike with keys that are drawn at random, and with those "
    "that lie nearest; as many of them. Beside them it is trained on with all keys.",
    rule=RULE,
    config=SparsifinerRecallConfig,
    tiny=SparsifinerRecallConfig(
        data="digits",
        images=64,
        held_out=32,
        dim=16,
        depth=2,
        patch_size=2,
        keep=(0.25, 0.5),
        fit_epochs=1,
        tune_epochs=1,
        epochs=1,
        seeds=2,
    ),
    run=run,
    verdict=verdict,
    examples=EXAMPLES,
    picture=draw,
)
