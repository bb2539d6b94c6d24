"""Regions that choose what they attend beside random, own and all regions: what the choice is worth."""

from __future__ import annotations

from functools import partial

from qna._core.about import About
from qna.labs.biformer_routing.config import BiFormerRoutingConfig
from qna.labs.biformer_routing.layers import measure_forms
from qna.labs.biformer_routing.picture import draw
from qna.labs.biformer_routing.training import train_all
from qna.labs.biformer_routing.verdict import EXAMPLES, RULE, verdict
from qna.labs.paired import parts_of
from qna.labs.row import Lab, LabFolder, Metrics


def run(config: BiFormerRoutingConfig, folder: LabFolder) -> Metrics:
    """A part for each seed and learning rate, in which every network is trained; and one for the layer."""
    return folder.measured({**parts_of(config, train_all), "the layer": partial(measure_forms, config)})


LAB = Lab(
    name="biformer-routing",
    about=About(
        title="BiFormer: Vision Transformer with Bi-Level Routing Attention",
        authors="Zhu, Wang, Ke et al.",
        venue="CVPR 2023",
        arxiv="2303.08810",
        read="the authors' code and its README, rayleizhu/BiFormer at 1697bbb (MIT)",
        differs="the published networks have four stages and were trained on ImageNet; these have one stage "
        "of two blocks and see small images for 300 steps from scratch: how fast they learn, not what they "
        "could reach. The random control is ours",
        status="after",
    ),
    claim="Attending a few regions that are chosen by content costs less than attending all of them, and "
    "does better than local windows (README: the network of Swin's layout reaches 82.7 % on ImageNet).",
    control="The same network, of the same parameters, trained alike, whose regions attend all regions "
    "(full attention), themselves alone (windows), or themselves and random others, as many as are chosen "
    "(what the choice itself is worth). For the layer's memory the form that gathers all keys and values "
    "at once.",
    rule=RULE,
    config=BiFormerRoutingConfig,
    tiny=BiFormerRoutingConfig(
        data="digits",
        images=48,
        held_out=24,
        dim=16,
        blocks=1,
        patch_size=1,
        regions=4,
        epochs=1,
        rates=(4e-3,),
        seeds=2,
        side=16,
        side_dim=32,
        seconds=0.01,
    ),
    run=run,
    verdict=verdict,
    examples=EXAMPLES,
    picture=draw,
)
