"""QnA's own claim: what overlapping windows cost with learned queries, and what they learn at equal cost."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from qna.labs.qna_cost.config import QnACostConfig
from qna.labs.qna_cost.layers import measure_layers
from qna.labs.qna_cost.picture import draw
from qna.labs.qna_cost.training import train_both
from qna.labs.qna_cost.verdict import EXAMPLES, RULE, verdict
from qna.labs.row import Lab, LabFolder, Metrics
from qna.mixers.learned_query import ABOUT


def run(config: QnACostConfig, folder: LabFolder) -> Metrics:
    """A part for each window, then one for each seed and learning rate."""
    layers = {f"window {k}": partial(measure_layers, config, k) for k in config.windows}
    training = {
        f"seed {seed}, rate {rate:g}": partial(train_both, config, folder.path, seed, rate)
        for seed in range(config.seed, config.seed + config.seeds)
        for rate in config.rates
    }
    return folder.measured({**layers, **training})


LAB = Lab(
    name="qna-cost",
    about=replace(
        ABOUT,
        read="the abstract; the authors' JAX code, moabarar/qna at 1f8e8e3 (MIT)",
        differs="the paper measured on a GPU, at other sizes, with its own code; here it is one CPU core",
        status="after",
    ),
    claim="Local attention with learned queries takes up to 10 times less memory and is up to 5 times faster "
    "than earlier local attention, the more so the larger the window, at comparable accuracy (abstract; the "
    "two figures are the paper's, on its GPU).",
    control="Self-attention of the same reach and channels: every position over its own window, by unfolded "
    "keys and values (`sasa-unfold`) and by blocks with a halo (`halo`, timm's); the cheaper one counts. "
    "Beside it, windows that tile the map (`swin`, timm's), and QnA in plain torch (`qna-reference`), which "
    "tells how much of a gain is the method's and how much the compiled kernel's. For accuracy, a network of "
    "equal cost with self-attention in windows that tile the map.",
    rule=RULE,
    config=QnACostConfig,
    tiny=QnACostConfig(
        windows=(3,), batch=1, side=8, dim=32, seconds=0.001, epochs=1, rates=(1.6e-2,), seeds=1
    ),
    run=run,
    verdict=verdict,
    examples=EXAMPLES,
    picture=draw,
)
