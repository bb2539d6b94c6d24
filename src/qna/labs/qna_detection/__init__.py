"""QnA inside detectors: what DETR and RT-DETR find on it, beside convolutions of equal size."""

from __future__ import annotations

from functools import partial

from qna._core.about import About
from qna.labs.qna_detection.config import QnADetectionConfig
from qna.labs.qna_detection.picture import draw
from qna.labs.qna_detection.training import train_all
from qna.labs.qna_detection.verdict import EXAMPLES, RULE, verdict
from qna.labs.row import Lab, LabFolder, Metrics


def run(config: QnADetectionConfig, folder: LabFolder) -> Metrics:
    """A part for each detector and seed."""
    return folder.measured(
        {
            f"{detector}, seed {seed}": partial(train_all, config, folder.path / "training", detector, seed)
            for seed in range(config.seed, config.seed + config.seeds)
            for detector in config.detectors
        }
    )


LAB = Lab(
    name="qna-detection",
    about=About(
        title="Learned Queries for Efficient Local Attention",
        authors="Arar, Shamir, Bermano",
        venue="CVPR 2022",
        arxiv="2112.11435",
        read="the abstract; the authors' JAX code, moabarar/qna at 1f8e8e3 (MIT), which has no detector",
        differs="the paper trained DETR on COCO, and its table could not be read. Here backbones of half a "
        "million parameters learn from scratch on composed scenes, under RT-DETR, which learns in minutes",
        status="after",
    ),
    claim="QnA-ViT serves as the backbone of DETR in the place of a convolutional network (the paper's "
    "section on detection, whose figures are not repeated here because they could not be read).",
    control="ConvNeXt of timm with as many parameters and the same strides, under the same detector, on the "
    "same scenes by the same rules; and the detector with QnA that nothing was taught.",
    rule=RULE,
    config=QnADetectionConfig,
    tiny=QnADetectionConfig(
        detectors=("rt-detr", "detr"), images=4, held_out=2, size=32, drawn=True, epochs=1, seeds=1
    ),
    run=run,
    verdict=verdict,
    examples=EXAMPLES,
    picture=draw,
)
