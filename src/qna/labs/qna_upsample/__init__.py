"""QnA's up-sampling beside the usual ones: what a decoder restores of real images."""

from __future__ import annotations

from qna._core.about import About
from qna.labs.paired import parts_of
from qna.labs.qna_upsample.config import QnAUpsampleConfig
from qna.labs.qna_upsample.picture import draw
from qna.labs.qna_upsample.training import train_all
from qna.labs.qna_upsample.verdict import EXAMPLES, RULE, verdict
from qna.labs.row import Lab, LabFolder, Metrics


def run(config: QnAUpsampleConfig, folder: LabFolder) -> Metrics:
    """A part for each seed and learning rate, in which every decoder is trained."""
    return folder.measured(parts_of(config, train_all))


LAB = Lab(
    name="qna-upsample",
    about=About(
        title="Learned Queries for Efficient Local Attention",
        authors="Arar, Shamir, Bermano",
        venue="CVPR 2022",
        arxiv="2112.11435",
        read="what pull request 125 of lucidrains/lightweight-gan says of the paper's comparison, without "
        "figures; a layer on one axis by the same first author (SinMDM/SinMDM at 5feb29d, MIT)",
        differs="the paper's network, data and figures are not known here; these are auto-encoders of ours",
        status="after",
    ),
    claim="Up-sampling with learned queries does better than bilinear up-sampling and transposed convolution "
    "(as is reported of the paper; its figures are not known here).",
    control="The same auto-encoder with another layer in the two places where its decoder doubles the map: "
    "bilinear and nearest up-sampling, each with a linear map of the channels, transposed convolution "
    "(4 x 4) and sub-pixel convolution (3 x 3; Shi et al., CVPR 2016). Beside them QnA whose scores are held "
    "at zero, which learns a fixed interpolation: it tells what attention to the content adds.",
    rule=RULE,
    config=QnAUpsampleConfig,
    tiny=QnAUpsampleConfig(data="digits", images=48, held_out=24, dim=8, epochs=1, rates=(4e-3,), seeds=2),
    run=run,
    verdict=verdict,
    examples=EXAMPLES,
    picture=draw,
)
