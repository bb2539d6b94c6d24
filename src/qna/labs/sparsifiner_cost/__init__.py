"""Whether keys that are not seen are time that is not spent."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from qna.adapters import ADAPTERS
from qna.labs.row import Lab, LabFolder, Metrics
from qna.labs.sparsifiner_cost.config import SparsifinerCostConfig
from qna.labs.sparsifiner_cost.timing import time_size
from qna.labs.sparsifiner_cost.verdict import EXAMPLES, RULE, verdict


def run(config: SparsifinerCostConfig, folder: LabFolder) -> Metrics:
    """A part for each size of image."""
    return folder.measured({f"{size} pixels": partial(time_size, config, size) for size in config.sizes})


LAB = Lab(
    name="sparsifiner-cost",
    about=replace(
        ADAPTERS["sparsifiner"].about,
        differs="the paper counts operations; this takes the time of one core of a processor, of weights "
        "that are drawn at random, with torch's own sparse products",
    ),
    claim="Sparse attention cuts the operations of multi-head attention by 48 to 69 % (abstract); an "
    "efficient transformer would take less time for that.",
    control="The dense network, with torch's fused attention. Beside them the sparse network whose tokens "
    "are taken out as well, and of one attention: all its products, the choice of keys, the products of "
    "chosen keys alone, and all products with the others masked.",
    rule=RULE,
    config=SparsifinerCostConfig,
    tiny=SparsifinerCostConfig(model="vit_tiny_patch16_224", sizes=(64, 96), layers=(1, 2), seconds=0.001),
    run=run,
    verdict=verdict,
    examples=EXAMPLES,
)
