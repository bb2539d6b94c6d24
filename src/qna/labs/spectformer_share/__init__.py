"""Spectral blocks first and attention after them, beside networks of either alone."""

from __future__ import annotations

from dataclasses import replace

from qna.labs.paired import parts_of
from qna.labs.row import Lab, LabFolder, Metrics
from qna.labs.spectformer_share.config import SpectFormerShareConfig
from qna.labs.spectformer_share.networks import train_all
from qna.labs.spectformer_share.picture import draw
from qna.labs.spectformer_share.verdict import EXAMPLES, RULE, verdict
from qna.mixers import MIXERS


def run(config: SpectFormerShareConfig, folder: LabFolder) -> Metrics:
    """A part for each seed and learning rate, in which every network is trained."""
    return folder.measured(parts_of(config, train_all))


LAB = Lab(
    name="spectformer-share",
    about=replace(
        MIXERS["SpectralGating2d"].about,
        read="the abstract",
        differs="the paper trained twelve blocks and more on ImageNet; these are six blocks of few channels "
        "on maps of 7 x 7 that see small images for some 250 steps from scratch: how fast they learn, not "
        "what they could reach",
        status="after",
    ),
    claim="Spectral layers first and attention in the deeper ones make a better transformer than one of the "
    "two alone (abstract).",
    control="The same network whose blocks all attend, and the same whose blocks all are spectral: of the "
    "same depth and width, with the same images, order, rates and epochs.",
    rule=RULE,
    config=SpectFormerShareConfig,
    tiny=SpectFormerShareConfig(
        data="digits",
        images=32,
        held_out=16,
        dim=16,
        depth=2,
        spectral=1,
        patch_size=2,
        epochs=1,
        rates=(3e-3,),
        seeds=2,
    ),
    run=run,
    verdict=verdict,
    examples=EXAMPLES,
    picture=draw,
)
