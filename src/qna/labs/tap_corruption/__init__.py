"""Whether averaged tokens and diverse attention make a vision transformer robust to damaged images."""

from __future__ import annotations

from dataclasses import replace

from qna.adapters import ADAPTERS
from qna.labs.paired import parts_of
from qna.labs.row import Lab, LabFolder, Metrics
from qna.labs.tap_corruption.config import TAPCorruptionConfig
from qna.labs.tap_corruption.picture import draw
from qna.labs.tap_corruption.training import train_all
from qna.labs.tap_corruption.verdict import EXAMPLES, RULE, verdict


def run(config: TAPCorruptionConfig, folder: LabFolder) -> Metrics:
    """A part for each seed, in which every network is trained."""
    return folder.measured(parts_of(config, train_all))


LAB = Lab(
    name="tap-corruption",
    about=replace(
        ADAPTERS["tap_adl"].about,
        read="the authors' README, guoyongcs/TAPADL at 6e4dbff (MIT)",
        differs="the paper trains FAN and RVT on ImageNet and judges them on ImageNet-C; these are vision "
        "transformers of four blocks on small images, and corruptions of our own",
    ),
    claim="Averaging tokens over neighbourhoods of their own choice, and a loss on attention that is all "
    "alike, make vision transformers more robust to damaged images and no worse on whole ones (title and "
    "README).",
    control="The same network without either, trained on the same images in the same order from the same "
    "draws. Beside it each half alone.",
    rule=RULE,
    config=TAPCorruptionConfig,
    tiny=TAPCorruptionConfig(
        data="digits", images=64, held_out=32, dim=16, depth=1, patch_size=2, epochs=1, seeds=2
    ),
    run=run,
    verdict=verdict,
    examples=EXAMPLES,
    picture=draw,
)
