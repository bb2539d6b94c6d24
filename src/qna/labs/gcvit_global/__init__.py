"""Every second block with queries of the whole image, beside windows with queries of their own."""

from __future__ import annotations

from dataclasses import replace

from qna.labs.gcvit_global.config import GCViTGlobalConfig
from qna.labs.gcvit_global.networks import train_all
from qna.labs.gcvit_global.picture import draw
from qna.labs.gcvit_global.verdict import ABLATION, RULE
from qna.labs.paired import parts_of
from qna.labs.row import Lab, LabFolder, Metrics
from qna.mixers import MIXERS


def run(config: GCViTGlobalConfig, folder: LabFolder) -> Metrics:
    """A part for each seed and learning rate, in which every network is trained."""
    return folder.measured(parts_of(config, train_all))


LAB = Lab(
    name="gcvit-global",
    about=replace(
        MIXERS["GlobalContextAttention2d"].about,
        read="the authors' README, NVlabs/GCVit at 8e1941f",
        differs="the paper trained networks of four stages on ImageNet; these are networks of one stage that "
        "see small images for 300 steps from scratch: how fast they learn, not what they could reach",
        status="after",
    ),
    claim="Attention with global queries, beside attention inside windows, models what is far apart in an "
    "image, without windows that are shifted (README): here the network with global queries in every second "
    "block does better than the same network without.",
    control="The same network whose blocks all are windows with queries of their own, trained alike; with "
    "global queries a network has fewer parameters and multiply-adds, the generator of the queries included. "
    "Beside it one whose every second block's windows are shifted, the other way past a window's edge.",
    rule=RULE,
    config=GCViTGlobalConfig,
    tiny=GCViTGlobalConfig(
        data="digits",
        images=48,
        held_out=24,
        dim=16,
        blocks=2,
        window=4,
        patch_size=1,
        epochs=1,
        rates=(4e-3,),
        seeds=2,
    ),
    run=run,
    verdict=ABLATION.verdict,
    examples=ABLATION.examples(),
    picture=draw,
)
