"""Aggregated attention beside shifted windows, on objects elsewhere than in training and at other sizes."""

from __future__ import annotations

from dataclasses import replace

from qna.labs.paired import parts_of
from qna.labs.row import Lab, LabFolder, Metrics
from qna.labs.transnext_shift.config import TransNeXtShiftConfig
from qna.labs.transnext_shift.picture import draw
from qna.labs.transnext_shift.training import train_all
from qna.labs.transnext_shift.verdict import EXAMPLES, RULE, verdict
from qna.mixers import MIXERS


def run(config: TransNeXtShiftConfig, folder: LabFolder) -> Metrics:
    """A part for each seed and learning rate, in which both networks are trained."""
    return folder.measured(parts_of(config, train_all))


LAB = Lab(
    name="transnext-shift",
    about=replace(
        MIXERS["AggregatedAttention2d"].about,
        read="the abstract; the authors' code and its README, DaiShiResearch/TransNeXt at c8a9974 "
        "(Apache-2.0)",
        differs="the authors trained networks of four stages on ImageNet, and tell of ImageNet-A and of "
        "larger images beside convolutions; these are networks of one stage that learn small objects in the "
        "middle of a frame for 400 steps (600 in the first run) from scratch, with plain MLPs on both sides; "
        "moved objects are our test. A first trial of half as many steps as in the first run, with shifts of "
        "parts of patches, came out held by a rule without the clause on what was learned, with 20 and 16 % "
        "of moved objects right, little more than chance; sizes and that clause were settled before the "
        "first run. The clause on single shifts and scales was added after it, against the claim: without it "
        "the verdict was held, on the shift of 9 pixels mainly, which is a cell of the pooled map there, "
        "where the windows' period is 18. In the second run cells and windows both have a period of 18 "
        "pixels, in a larger frame, and all shifts up to it are asked; its rule is the first run's. Its "
        "sizes were settled by what it costs and by what is learned in the middle, on a seed of its own, "
        "whose moved objects were seen too",
        status="after",
    ),
    claim="Aggregated attention lets each token perceive the whole map and is robust (title and abstract); "
    "its length-scaled cosine attention and extrapolated position bias serve images larger than in training "
    "(the authors' README). Here: what it learned of objects in the middle it keeps, better than windows do, "
    "where objects are moved and where images have another size.",
    control="The same network with windows, shifted in every second block, of as many multiply-adds, trained "
    "alike, on the same images in the same order. Windows follow the size of a map by themselves.",
    rule=RULE,
    config=TransNeXtShiftConfig,
    tiny=TransNeXtShiftConfig(
        data="digits",
        images=48,
        held_out=24,
        frame=12,
        object=8,
        shifts=(2,),
        scales=(1.5,),
        dim=16,
        blocks=1,
        patch_size=2,
        window=3,
        cell=2,
        epochs=1,
        rates=(4e-3,),
        seeds=2,
    ),
    run=run,
    verdict=verdict,
    examples=EXAMPLES,
    picture=draw,
)
