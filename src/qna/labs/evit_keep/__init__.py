"""Whether the class token's attention knows which tokens an image can do without."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from qna.adapters import ADAPTERS
from qna.labs.evit_keep.config import EViTKeepConfig
from qna.labs.evit_keep.picture import draw
from qna.labs.evit_keep.training import evaluate_all, time_all
from qna.labs.evit_keep.verdict import EXAMPLES, RULE, verdict
from qna.labs.paired import parts_of
from qna.labs.row import Lab, LabFolder, Metrics


def run(config: EViTKeepConfig, folder: LabFolder) -> Metrics:
    """A part for each seed, in which networks are trained and lose tokens in all ways; then the times."""
    return folder.measured({**parts_of(config, evaluate_all), "times": partial(time_all, config)})


LAB = Lab(
    name="evit-keep",
    about=replace(
        ADAPTERS["evit"].about,
        read="the abstract; the authors' README, youweiliang/evit at 5ca95a7 (Apache-2.0)",
        differs="the paper trains DeiT on ImageNet; this is a small vision transformer on small images. A "
        "first run trained one network with all its tokens and dropped them afterwards, by every chooser, "
        "which is not what is claimed; it was not seen then, as the second verdict tells. The rule was not "
        "changed",
    ),
    claim="The tokens that the class token attends least can be fused into one without much loss, and the "
    "network gets faster: a rate of 0.7 costs DeiT-S 0.3 points of accuracy (abstract and README; there with "
    "training).",
    control="The same network, trained alike, from which tokens are dropped at random, and one from which "
    "those are dropped that are attended most; what is dropped is fused with the same weights in all of "
    "them. Beside them the network with all its tokens.",
    rule=RULE,
    config=EViTKeepConfig,
    tiny=EViTKeepConfig(
        data="digits",
        images=64,
        held_out=32,
        dim=16,
        depth=4,
        patch_size=2,
        keep=(0.7, 0.5),
        time_size=16,
        seconds=0.01,
        epochs=1,
        seeds=2,
    ),
    run=run,
    verdict=verdict,
    examples=EXAMPLES,
    picture=draw,
)
