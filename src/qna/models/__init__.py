"""Backbones; importing this registers them in timm: ``timm.create_model("qna_vit_tiny")``."""

from qna.models import timm_entry as _timm_entry  # noqa: F401 - registers the variants
from qna.models.qna_vit.network import QnAViT
from qna.models.qna_vit.variants import QNA_VIT, BlockSpec, QnAViTVariant
from qna.models.sharing import from_pretrained, save_pretrained

__all__ = ["QNA_VIT", "BlockSpec", "QnAViT", "QnAViTVariant", "from_pretrained", "save_pretrained"]
