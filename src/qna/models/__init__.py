"""Backbones; importing this registers them in timm: ``timm.create_model("qna_vit_tiny")``."""

from qna.models._parts.backbone import Backbone
from qna.models._parts.block import BlockSpec
from qna.models.biformer import BIFORMER_SIZES, BiFormer, BiFormerVariant
from qna.models.decoder import Decoder, DecoderVariant, create_decoder
from qna.models.family import Family, Variant
from qna.models.focalnet import FOCALNET, FocalNet, FocalNetVariant
from qna.models.gcvit import GCVIT, GCViT, GCViTVariant
from qna.models.halonet import HALONET, HaloNet, HaloNetVariant
from qna.models.l2vit import L2VIT, L2ViT, L2ViTVariant
from qna.models.minimal import MINIMAL, MinimalTransformer, MinimalVariant
from qna.models.nat import DINAT_SIZES, NAT, NAT_SIZES, NATVariant
from qna.models.ninformer import NINFORMER, NiNformer, NiNformerVariant
from qna.models.overlock import OVERLOCK, OverLoCK, OverLoCKVariant
from qna.models.qna_unet import QNA_UNET, QnAUNet, QnAUNetVariant
from qna.models.qna_vit import QNA_VIT, QnAViT, QnAViTVariant
from qna.models.registry import FAMILIES, create
from qna.models.segmenter import DecodedBackbone, create_segmenter
from qna.models.sharing import from_pretrained, save_pretrained
from qna.models.terminator import TERMINATOR, Kar3, Terminator, TerminatorVariant
from qna.models.transnext import MOH_VIT, TRANSNEXT, MoHViT, MoHViTVariant, TransNeXt, TransNeXtVariant
from qna.models.vsa import (
    SWIN_VSA,
    VITAEV2_VSA,
    SwinVSA,
    SwinVSAVariant,
    ViTAEv2VSA,
    ViTAEv2VSAVariant,
)

__all__ = [
    "BIFORMER_SIZES",
    "DINAT_SIZES",
    "FAMILIES",
    "FOCALNET",
    "GCVIT",
    "HALONET",
    "L2VIT",
    "MOH_VIT",
    "MINIMAL",
    "MinimalTransformer",
    "MinimalVariant",
    "NAT",
    "NATVariant",
    "NAT_SIZES",
    "NINFORMER",
    "NiNformer",
    "NiNformerVariant",
    "OVERLOCK",
    "QNA_UNET",
    "QNA_VIT",
    "SWIN_VSA",
    "TERMINATOR",
    "TRANSNEXT",
    "VITAEV2_VSA",
    "Backbone",
    "BiFormer",
    "BiFormerVariant",
    "DecodedBackbone",
    "Decoder",
    "DecoderVariant",
    "BlockSpec",
    "Family",
    "FocalNet",
    "FocalNetVariant",
    "GCViT",
    "GCViTVariant",
    "HaloNet",
    "HaloNetVariant",
    "L2ViT",
    "L2ViTVariant",
    "MoHViT",
    "MoHViTVariant",
    "Kar3",
    "OverLoCK",
    "OverLoCKVariant",
    "QnAUNet",
    "QnAUNetVariant",
    "QnAViT",
    "QnAViTVariant",
    "SwinVSA",
    "SwinVSAVariant",
    "Terminator",
    "TerminatorVariant",
    "TransNeXt",
    "TransNeXtVariant",
    "Variant",
    "ViTAEv2VSA",
    "ViTAEv2VSAVariant",
    "create",
    "create_decoder",
    "create_segmenter",
    "from_pretrained",
    "save_pretrained",
]
