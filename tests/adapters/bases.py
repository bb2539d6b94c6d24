"""The kinds of networks that adapters are tried on, small."""

from collections.abc import Callable, Mapping

import timm
from torch import nn

SIZE, CLASSES = 32, 5
SMALL = {
    "img_size": SIZE,
    "patch_size": 8,
    "embed_dim": 24,
    "depth": 4,
    "num_heads": 3,
    "num_classes": CLASSES,
}


def _vit(name: str, **further: object) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, **SMALL, **further)


# name -> makes one; all read images of SIZE pixels
BASES: Mapping[str, Callable[[], nn.Module]] = {
    # a class token
    "vit": _vit("vit_tiny_patch16_224"),
    # class and distillation tokens
    "distilled": _vit("deit_tiny_distilled_patch16_224"),
    # four registers beside a class token, layer scale
    "registers": _vit("vit_small_patch14_reg4_dinov2"),
    "qna_vit": lambda: timm.create_model("qna_vit_nano_16", num_classes=CLASSES),
    "convnext": lambda: timm.create_model(
        "convnext_atto", num_classes=CLASSES, dims=(8, 16, 16, 16), depths=(1, 1, 1, 1)
    ),
}
