"""Coloured clouds of points drawn from noise, guided by a sketch and by words."""

from __future__ import annotations

from functools import partial

from qna._core.about import About
from qna.labs.row import Lab, LabFolder, Metrics
from qna.labs.sketch_clouds.config import SketchCloudsConfig
from qna.labs.sketch_clouds.picture import draw
from qna.labs.sketch_clouds.training import colour, shape
from qna.labs.sketch_clouds.verdict import EXAMPLES, RULE, verdict


def run(config: SketchCloudsConfig, folder: LabFolder) -> Metrics:
    """For each seed a part of shapes and one of colours."""
    parts = {}
    for seed in range(config.seed, config.seed + config.seeds):
        for what, ask in (("shapes", shape), ("colours", colour)):
            parts[f"seed {seed}, {what}"] = partial(ask, config, seed)
    return folder.measured(parts)


LAB = Lab(
    name="sketch-clouds",
    about=About(
        title="Sketch and Text Guided Diffusion Model for Colored Point Cloud Generation",
        authors="Wu, Wang et al.",
        venue="ICCV 2023",
        arxiv="2308.02874",
        read="the abstract; the noise schedule of what it builds on, alexzhou907/PVD at 9747265 (MIT)",
        differs="in the spirit of it: network, fusion and all sizes are ours, clouds have about a hundred "
        "points, things are four kinds of parametric solids, sketches are drawn from their surfaces, and "
        "words are a learned vocabulary",
        status="after",
    ),
    claim="A sketch, encoded by capsules with attention, and a text guide the diffusion of a cloud of "
    "points: first its shape, then its colours, so that colours can be changed and parts be told (abstract).",
    control="Clouds drawn by words alone, by nothing, and by the sketch of another thing of the same kind; "
    "colours by another thing's words, and the mean colour. The same thing sampled again is the floor.",
    rule=RULE,
    config=SketchCloudsConfig,
    tiny=SketchCloudsConfig(
        things=8,
        points=12,
        dim=8,
        depth=1,
        capsules=2,
        shape_steps=1,
        colour_steps=1,
        batch=2,
        few=2,
        judged=8,
    ),
    run=run,
    verdict=verdict,
    examples=EXAMPLES,
    picture=draw,
)
