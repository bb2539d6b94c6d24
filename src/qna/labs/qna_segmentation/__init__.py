"""Whether learned queries serve where the map shrinks and where it grows: beside a U-Net of equal size."""

from __future__ import annotations

from functools import partial

from qna._core.about import About
from qna.labs.qna_segmentation.config import QnASegmentationConfig
from qna.labs.qna_segmentation.picture import draw
from qna.labs.qna_segmentation.training import train_both
from qna.labs.qna_segmentation.verdict import EXAMPLES, RULE, verdict
from qna.labs.row import Lab, LabFolder, Metrics


def run(config: QnASegmentationConfig, folder: LabFolder) -> Metrics:
    """A part for each seed and learning rate."""
    return folder.measured(
        {
            f"seed {seed}, rate {rate:g}": partial(train_both, config, folder.path, seed, rate)
            for seed in range(config.seed, config.seed + config.seeds)
            for rate in config.rates
        }
    )


LAB = Lab(
    name="qna-segmentation",
    about=About(
        title="Learned Queries for Efficient Local Attention",
        authors="Arar, Shamir, Bermano",
        venue="CVPR 2022",
        arxiv="2112.11435",
        read="the abstract and opening pages; the authors' JAX code, moabarar/qna at 1f8e8e3 (MIT)",
        differs="the paper has detection and up-sampling and no segmentation; that the claim carries over to "
        "masks is our reading of it, and network, scenes and sizes are ours",
        status="after",
    ),
    claim="Learned queries take the place of convolutions in down-sampling, up-sampling and all between, at "
    "comparable accuracy (abstract, and its remark on up-sampling): here a QnA-UNet segments composed scenes "
    "no worse than a U-Net of as many parameters.",
    control="A U-Net of convolutions (segmentation_models_pytorch's decoder around a small ResNet), within "
    "2 % of as many parameters, trained alike: the same scenes, augmentation, loss, epochs and rates.",
    rule=RULE,
    config=QnASegmentationConfig,
    tiny=QnASegmentationConfig(
        scenes="shapes", images=8, held_out=2, size=16, epochs=1, rates=(3.2e-2,), seeds=2
    ),
    run=run,
    verdict=verdict,
    examples=EXAMPLES,
    picture=draw,
)
