"""Linear attention with and without local concentration: where it looks, what it reaches, what it costs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from qna.labs.l2vit_concentration.config import L2ViTConcentrationConfig
from qna.labs.l2vit_concentration.layers import measure_cost
from qna.labs.l2vit_concentration.picture import draw
from qna.labs.l2vit_concentration.training import train_all
from qna.labs.l2vit_concentration.verdict import EXAMPLES, RULE, verdict
from qna.labs.paired import parts_of
from qna.labs.row import Lab, LabFolder, Metrics
from qna.mixers import MIXERS


def run(config: L2ViTConcentrationConfig, folder: LabFolder) -> Metrics:
    """A part for each seed and learning rate, in which every network is trained; and one for the cost."""
    return folder.measured({**parts_of(config, train_all), "the cost": partial(measure_cost, config)})


LAB = Lab(
    name="l2vit-concentration",
    about=replace(
        MIXERS["LinearAttention2d"].about,
        read="the author's code and its README, ChuanyangZheng/L2ViT at fad0341 (MIT)",
        differs="the published networks have four stages and were trained on ImageNet; these have one "
        "stage and see small images for some hundred steps: how fast they learn, not what they could "
        "reach. Times were first taken beside other work and said that linear attention grows to the power "
        "1.38; they were taken again on an idle machine, and nothing else was",
        status="after",
    ),
    claim="Linear attention holds the context of the whole map at a cost that is linear in the map; a local "
    "concentration module behind it brings near context back, and accuracy with it (README and code).",
    control="The same network without the module, whose MLP behind linear attention is wider instead, so "
    "that it has no fewer parameters and multiply-adds, trained alike. Beside it one with softmax attention "
    "of the whole map and that MLP. For the cost, softmax attention of the whole map by torch's fused "
    "kernel.",
    rule=RULE,
    config=L2ViTConcentrationConfig,
    tiny=L2ViTConcentrationConfig(
        data="digits",
        images=32,
        held_out=16,
        dim=16,
        patch_size=2,
        probed=4,
        epochs=1,
        batch=16,
        rates=(4e-3,),
        seeds=2,
        sides=(4, 8),
        largest=12,
        seconds=0.001,
    ),
    run=run,
    verdict=verdict,
    examples=EXAMPLES,
    picture=draw,
)
