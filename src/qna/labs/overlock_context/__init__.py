"""Whether kernels made of an overview see more of larger images, and whether the overview is worth it."""

from __future__ import annotations

from dataclasses import replace

from qna.labs.overlock_context.config import OverLoCKContextConfig
from qna.labs.overlock_context.picture import draw
from qna.labs.overlock_context.training import train_all
from qna.labs.overlock_context.verdict import EXAMPLES, RULE, verdict
from qna.labs.paired import parts_of
from qna.labs.row import Lab, LabFolder, Metrics
from qna.mixers import MIXERS


def run(config: OverLoCKContextConfig, folder: LabFolder) -> Metrics:
    """A part for each seed and learning rate, in which every network is trained."""
    return folder.measured(parts_of(config, train_all))


LAB = Lab(
    name="overlock-context",
    about=replace(
        MIXERS["ContMix2d"].about,
        read="the abstract; the authors' code, LMMMEng/OverLoCK at 2c8ab3b (Apache-2.0)",
        differs="the paper trained on ImageNet; these are networks of 16 to 32 channels, after a minute on "
        "small images that are enlarged, whose weights begin with variance 1 / inputs",
    ),
    claim="Kernels that mix in a context model dependencies over long ranges also when the resolution grows, "
    "and the overview's context makes the network better (abstract).",
    control="The same network with static kernels of the same size and no overview: whether its receptive "
    "field grows as well. And the same network whose overview is zero, of as many parameters and "
    "multiply-adds: whether the overview makes it better. Images, order, rates, epochs and the draws of what "
    "networks share are the same.",
    rule=RULE,
    config=OverLoCKContextConfig,
    tiny=OverLoCKContextConfig(
        data="digits",
        images=32,
        held_out=16,
        image_size=32,
        fields=(32, 64),
        epochs=1,
        rates=(4e-3,),
        seeds=2,
    ),
    run=run,
    verdict=verdict,
    examples=EXAMPLES,
    picture=draw,
)
