"""QnA-UNet: an encoder-decoder of learned queries for dense prediction, in three sizes."""

from collections.abc import Mapping
from typing import Any

from qna._core.about import About
from qna.models._parts import shortcut, stem
from qna.models.family import Family
from qna.models.qna_unet.network import Ascent, PixelHead, QnAUNet
from qna.models.qna_unet.variants import QNA_UNET, QnAUNetVariant
from qna.parts.drop_path import DropPath
from qna.parts.mlp import ChannelMlp

__all__ = ["FAMILY", "QNA_UNET", "QnAUNet", "QnAUNetVariant"]


def _timm_cfg(variant: QnAUNetVariant) -> Mapping[str, Any]:
    return {
        "num_classes": 21,
        "pool_size": None,
        "first_conv": "encoder.stem.conv",
        "classifier": "head.fc",
        "origin_url": "https://github.com/moabarar/qna",
        "license": "mit",
    }


_ONE_NODE = (
    "the head cuts pixels by the size of the map and is one node, in which the classifier cannot be named"
)

FAMILY = Family(
    "qna_unet",
    About(
        title="Learned Queries for Efficient Local Attention",
        authors="Arar, Shamir, Bermano",
        venue="CVPR 2022",
        arxiv="2112.11435",
        read="the abstract and opening pages; github.com/moabarar/qna (MIT), which has no up-sampling",
        differs="the encoder-decoder and its sizes are ours: the U-Net of Ronneberger et al. (MICCAI 2015) "
        "with the paper's layers in the place of convolutions, pooling and up-convolutions",
        status="after",
    ),
    network=QnAUNet,
    variants=QNA_UNET,
    timm_cfg=_timm_cfg,
    stages=lambda variant: len(variant.encoder_blocks),
    task="segmentation",
    leaves=(
        *(ChannelMlp, DropPath, stem.PatchStem, shortcut.StridedShortcut, shortcut.RepeatedShortcut),
        *(Ascent, PixelHead),
    ),
    exempt={
        "every_module_is_called": "the encoder ends with its maps: its head and the lists of stages and "
        "levels compute nothing",
        "torch_fx": _ONE_NODE,
        "torch_script_is_refused_in_one_sentence": _ONE_NODE,
    },
)
