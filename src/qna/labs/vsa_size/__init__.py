"""Whether windows whose place and size are learned gain more over fixed ones on larger images."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from qna.labs.row import Lab, LabFolder, Metrics
from qna.labs.vsa_size.config import VSASizeConfig
from qna.labs.vsa_size.picture import draw
from qna.labs.vsa_size.training import size_case, train_all
from qna.labs.vsa_size.verdict import EXAMPLES, RULE, verdict
from qna.mixers import MIXERS


def run(config: VSASizeConfig, folder: LabFolder) -> Metrics:
    """A part for each image size, seed and learning rate, in which every network is trained."""
    return folder.measured(
        {
            f"{size_case(size)}, seed {seed}, rate {rate:g}": partial(train_all, config, size, seed, rate)
            for seed in range(config.seed, config.seed + config.seeds)
            for size in config.sizes
            for rate in config.rates
        }
    )


LAB = Lab(
    name="vsa-size",
    about=replace(
        MIXERS["VariedSizeWindowAttention2d"].about,
        read="the abstract; the authors' code, ViTAE-Transformer/ViTAE-VSA at 75dc986",
        differs="the paper trained on ImageNet at its own sizes; these are networks of two stages of two "
        "blocks, after a few minutes on small images that are brought to each size, so that larger ones hold "
        "no more detail; windows begin as plain ones, where the authors' begin anywhere",
    ),
    claim="Windows whose size and place are learned are above windows that stay, and the more so the larger "
    "the images are (abstract).",
    control="The same network with attention in windows that stay, which begins as the same function: "
    "the same weights, images, order, rates and epochs. Beside it windows of which every second block's are "
    "shifted, as in Swin.",
    rule=RULE,
    config=VSASizeConfig,
    tiny=VSASizeConfig(
        data="digits",
        images=32,
        held_out=16,
        sizes=(8, 16),
        blocks=1,
        window=2,
        epochs=1,
        rates=(4e-3,),
        seeds=2,
    ),
    run=run,
    verdict=verdict,
    examples=EXAMPLES,
    picture=draw,
)
