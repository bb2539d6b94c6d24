"""QnA-ViT: the backbone whose blocks a variant lists."""

from __future__ import annotations

from typing import Any

from qna.models._parts.backbone import Backbone
from qna.models.qna_vit.variants import QnAViTVariant


class QnAViT(Backbone):
    """The paper's network (Arar et al., CVPR 2022): a `Backbone` of self-attention in windows and QnA."""

    @classmethod
    def of(cls, variant: QnAViTVariant, **arguments: Any) -> QnAViT:
        """The model of a variant; `arguments`, its fields' and the constructor's, go before what it says."""
        variant, arguments = variant.varied(arguments)
        says = {
            "dim": variant.dim,
            "pool_heads": variant.pool_heads,
            "patch_size": variant.patch_size,
            "img_size": variant.image_size,
            "drop_path_rate": variant.drop_path_rate,
        }
        return cls(variant.stages(), **{**says, **arguments})
