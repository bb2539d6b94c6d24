"""Whether attention can take the place of convolution in a ResNet's later stages, with fewer parameters."""

from __future__ import annotations

from dataclasses import replace

from qna.labs.paired import parts_of
from qna.labs.row import Lab, LabFolder, Metrics
from qna.labs.sasa_stages.config import SasaStagesConfig
from qna.labs.sasa_stages.picture import draw
from qna.labs.sasa_stages.training import train_all
from qna.labs.sasa_stages.verdict import EXAMPLES, RULE, verdict
from qna.mixers import MIXERS


def run(config: SasaStagesConfig, folder: LabFolder) -> Metrics:
    """A part for each seed and learning rate, in which every network is trained."""
    return folder.measured(parts_of(config, train_all))


LAB = Lab(
    name="sasa-stages",
    about=replace(
        MIXERS["StandAloneAttention2d"].about,
        differs="the paper trained ResNets of 26 to 50 layers on ImageNet, and a RetinaNet; these have three "
        "small stages and see small images, and how heads share the embeddings is our choice",
    ),
    claim="Stand-alone self-attention can take the place of a ResNet's spatial convolutions with fewer "
    "parameters at no loss of accuracy, and does most in the later layers (abstract; its figures, 29 % fewer "
    "parameters and 12 % fewer FLOPs at a higher accuracy, are the paper's, on ImageNet).",
    control="The same network with its 3 x 3 convolutions, which has more parameters; and attention in the "
    "first stage alone, with convolutions after it. All else is the same: images, order, rates, epochs, and "
    "the draws of what networks share.",
    rule=RULE,
    config=SasaStagesConfig,
    tiny=SasaStagesConfig(
        data="digits", images=32, held_out=16, widths=(8, 8), window=3, epochs=1, rates=(4e-3,), seeds=2
    ),
    run=run,
    verdict=verdict,
    examples=EXAMPLES,
    picture=draw,
)
