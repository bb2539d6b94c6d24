"""Windows that are shifted in every second block, beside windows that are not."""

from __future__ import annotations

from dataclasses import replace

from qna.labs.paired import parts_of
from qna.labs.row import Lab, LabFolder, Metrics
from qna.labs.swin_shift.config import SwinShiftConfig
from qna.labs.swin_shift.networks import train_all
from qna.labs.swin_shift.picture import draw
from qna.labs.swin_shift.verdict import ABLATION, RULE
from qna.mixers import MIXERS


def run(config: SwinShiftConfig, folder: LabFolder) -> Metrics:
    """A part for each seed and learning rate, in which every network is trained."""
    return folder.measured(parts_of(config, train_all))


LAB = Lab(
    name="swin-shift",
    about=replace(
        MIXERS["ShiftedWindowAttention2d"].about,
        read="the abstract; timm 1.0.31's Swin block (Apache-2.0)",
        differs="the paper trained networks of four stages on ImageNet, and detectors and segmenters with "
        "them; these are networks of one stage that see small images for 300 steps from scratch: how fast "
        "they learn, not what they could reach",
        status="after",
    ),
    claim="Shifting the windows of every second block connects windows that attend by themselves otherwise, "
    "at the efficiency of windows that do not overlap (abstract): here the network with shifts does better "
    "than the same network without.",
    control="The same network with no window shifted, of as many parameters and multiply-adds, trained "
    "alike. Beside it one whose every window is the whole map: what connecting all positions is worth where "
    "it is paid for.",
    rule=RULE,
    config=SwinShiftConfig,
    tiny=SwinShiftConfig(
        data="digits",
        images=48,
        held_out=24,
        dim=16,
        blocks=2,
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
