"""The door to timm's registry: every variant under its name, with timm's conveniences."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from qna._core.third_party import import_vision
from qna.models.qna_vit.network import QnAViT
from qna.models.qna_vit.variants import QNA_VIT, QnAViTVariant


def _cfg(variant: QnAViTVariant) -> dict[str, Any]:
    size = variant.image_size
    return {
        "num_classes": 1000,
        "input_size": (3, size, size),
        "pool_size": None,
        "crop_pct": 224 / 256,
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "first_conv": "stem.conv",
        "classifier": "head.fc",
        "paper_ids": "arXiv:2112.11435",
        "paper_name": "Learned Queries for Efficient Local Attention",
        "origin_url": "https://github.com/moabarar/qna",
        "license": "mit",
    }


def _entry(name: str, variant: QnAViTVariant) -> Callable[..., nn.Module]:
    """The function that timm calls for `name`."""

    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        varied, others = variant.varied(kwargs)
        return build_model_with_cfg(
            partial(QnAViT.of, varied),
            name,
            pretrained,
            feature_cfg={"feature_cls": "getter", "out_indices": tuple(range(len(varied.qna_blocks)))},
            **others,
        )

    create.__name__ = name
    create.__module__ = __name__
    create.__doc__ = f"QnA-ViT of {variant}."
    return create


import_vision("timm", extra="models", purpose="qna.models")
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model  # noqa: E402

# timm looks both up in the module of an entry function
default_cfgs = generate_default_cfgs({name: _cfg(variant) for name, variant in QNA_VIT.items()})
globals().update({name: register_model(_entry(name, variant)) for name, variant in QNA_VIT.items()})
