"""Blocks of queries with a halo of keys, beside windows around each query and blocks without a halo."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from qna.labs.halo_blocks.config import HaloBlocksConfig
from qna.labs.halo_blocks.layers import measure_layers
from qna.labs.halo_blocks.networks import train_all
from qna.labs.halo_blocks.picture import draw
from qna.labs.halo_blocks.verdict import EXAMPLES, RULE, verdict
from qna.labs.paired import parts_of
from qna.labs.row import Lab, LabFolder, Metrics
from qna.mixers import MIXERS


def run(config: HaloBlocksConfig, folder: LabFolder) -> Metrics:
    """A part for what the layers cost, then one for each seed and learning rate."""
    return folder.measured({"layers": partial(measure_layers, config), **parts_of(config, train_all)})


LAB = Lab(
    name="halo-blocks",
    about=replace(
        MIXERS["HaloAttention2d"].about,
        read="the abstract; timm 1.0.31's HaloAttn (Apache-2.0); no code of the authors is published",
        differs="the paper trained networks of 50 layers and more on ImageNet, on other hardware; these are "
        "bottlenecks of one stage that see small images for some hundred steps from scratch, and layers on "
        "one CPU core",
        status="after",
    ),
    claim="Two extensions of local self-attention improve its speed, memory usage and accuracy (abstract). "
    "One of them is tried here: queries of a block share the block and a halo around it as their window, "
    "where each query had the window around itself.",
    control="The same layer with a block for every query, whose window is then centred on it; and without a "
    "halo, in blocks of as many keys as with it, and in blocks of as many queries. All is the same layer of "
    "this library with other sizes of block and halo, in the same network, trained alike.",
    rule=RULE,
    config=HaloBlocksConfig,
    tiny=HaloBlocksConfig(
        data="digits",
        images=48,
        held_out=24,
        width=8,
        blocks=1,
        patch_size=1,
        epochs=1,
        rates=(4e-3,),
        seeds=2,
        seconds=0.001,
    ),
    run=run,
    verdict=verdict,
    examples=EXAMPLES,
    picture=draw,
)
