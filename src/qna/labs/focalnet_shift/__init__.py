"""Whether focal modulation follows shifts of an image where windows do not, and is as accurate."""

from __future__ import annotations

from dataclasses import replace

from qna.labs.focalnet_shift.config import FocalNetShiftConfig
from qna.labs.focalnet_shift.picture import draw
from qna.labs.focalnet_shift.training import train_all
from qna.labs.focalnet_shift.verdict import EXAMPLES, RULE, verdict
from qna.labs.paired import parts_of
from qna.labs.row import Lab, LabFolder, Metrics
from qna.mixers import MIXERS


def run(config: FocalNetShiftConfig, folder: LabFolder) -> Metrics:
    """A part for each seed and learning rate, in which every network is trained."""
    return folder.measured(parts_of(config, train_all))


LAB = Lab(
    name="focalnet-shift",
    about=replace(
        MIXERS["FocalModulation2d"].about,
        read="the abstract; the authors' code and its README, microsoft/FocalNet at e8514bd (MIT)",
        differs="the paper trained on ImageNet; these are networks of two stages of two blocks, after a few "
        "minutes on small images with black around them, none of which was moved in training; linear maps "
        "begin with variance 1 / channels in all networks, since with the authors' deviation of 0.02 "
        "modulation of so few channels learns little in this time. That was settled after a first run, "
        "which is not kept; the rule was not changed",
    ),
    claim="Focal modulation does not depend on where in the image something stands, because every position's "
    "context lies around it (the authors' README), and networks of it are above those of windows at similar "
    "cost (abstract).",
    control="The same network with attention in windows, every second block's shifted as in Swin, at no "
    "fewer multiply-adds. Beside it a depthwise convolution of the same reach between two linear maps: what "
    "of it is the convolutions' alone. All else is the same: images, order, rates, epochs, and the draws of "
    "what networks share.",
    rule=RULE,
    config=FocalNetShiftConfig,
    tiny=FocalNetShiftConfig(
        data="digits",
        images=32,
        held_out=16,
        blocks=1,
        margin=2,
        shifts=(2,),
        epochs=1,
        rates=(4e-3,),
        seeds=2,
    ),
    run=run,
    verdict=verdict,
    examples=EXAMPLES,
    picture=draw,
)
