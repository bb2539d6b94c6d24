"""Dilated neighbourhoods beside plain ones of equal cost: whether context that costs nothing is worth it."""

from __future__ import annotations

from qna._core.about import About
from qna.labs.dinat_context.config import DiNATContextConfig
from qna.labs.dinat_context.picture import draw
from qna.labs.dinat_context.training import train_all
from qna.labs.dinat_context.verdict import ABLATION, RULE
from qna.labs.paired import parts_of
from qna.labs.row import Lab, LabFolder, Metrics


def run(config: DiNATContextConfig, folder: LabFolder) -> Metrics:
    """A part for each seed and learning rate, in which every network is trained."""
    return folder.measured(parts_of(config, train_all))


LAB = Lab(
    name="dinat-context",
    about=About(
        title="Dilated Neighborhood Attention Transformer",
        authors="Hassani, Shi",
        venue="2022",
        arxiv="2209.15001",
        read="the abstract; the authors' code, SHI-Labs/Neighborhood-Attention-Transformer at d334f5b (MIT)",
        differs="the paper trained on ImageNet and tried detection and segmentation; these are networks of "
        "one stage and two blocks, in which plain ones see a part of a small image, after 300 steps from "
        "scratch: how fast they learn, not what they could reach",
        status="after",
    ),
    claim="Dilated neighbourhoods between plain ones bring more global context at no additional cost, and "
    "networks of both do better than networks of plain ones alone (abstract).",
    control="The same network with no neighbourhood dilated, of as many parameters and multiply-adds, "
    "trained alike. Beside it one with plain neighbourhoods of 5x5 in the place of 3x3: what more context "
    "is worth where it is paid for.",
    rule=RULE,
    config=DiNATContextConfig,
    tiny=DiNATContextConfig(
        data="digits", images=48, held_out=24, dim=16, patch_size=1, epochs=1, rates=(4e-3,), seeds=2
    ),
    run=run,
    verdict=ABLATION.verdict,
    examples=ABLATION.examples(),
    picture=draw,
)
