"""Whether tokens that choose their heads can do with fewer of them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from qna.adapters import ADAPTERS
from qna.labs.moh_heads.config import MoHHeadsConfig
from qna.labs.moh_heads.picture import draw
from qna.labs.moh_heads.times import time_at
from qna.labs.moh_heads.training import train_all
from qna.labs.moh_heads.verdict import EXAMPLES, RULE, verdict
from qna.labs.paired import parts_of
from qna.labs.row import Lab, LabFolder, Metrics


def run(config: MoHHeadsConfig, folder: LabFolder) -> Metrics:
    """A part for each seed, in which every network is trained; then the times, a part for each size."""
    times = {f"times at {size}": partial(time_at, config, size) for size in config.time_sizes}
    return folder.measured({**parts_of(config, train_all), **times})


LAB = Lab(
    name="moh-heads",
    about=replace(
        ADAPTERS["moh"].about,
        read="the authors' README, SkyworkAI/MoH at 2cefd57 (Apache-2.0), and its figure",
        differs="the authors train TransNeXt and DiT on ImageNet; these are vision transformers of four "
        "blocks with four heads each on small images",
    ),
    claim="A network whose tokens choose 75 or 50 % of the heads is as good as the one in which all speak "
    "(TransNeXt-S 84.7 and 84.7 % with 80 % of the heads, TransNeXt-B 84.8 and 84.7 % with half), and a "
    "balance loss keeps the heads evenly used.",
    control="The same network in which as many heads speak, the same for all tokens, with learned gates; "
    "and the network in which all heads speak, without gates. Beside them the routed network without the "
    "balance loss. Images, order, rates, epochs and the draws of what networks share are the same.",
    rule=RULE,
    config=MoHHeadsConfig,
    tiny=MoHHeadsConfig(
        data="digits",
        images=32,
        held_out=16,
        dim=64,
        depth=1,
        patch_size=4,
        speaking=(0.75,),
        epochs=1,
        seeds=2,
        time_depth=1,
        time_sizes=(128,),
        seconds=0.001,
    ),
    run=run,
    verdict=verdict,
    examples=EXAMPLES,
    picture=draw,
)
