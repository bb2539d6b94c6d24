"""The kinds of networks that adapters are tried on, small."""

from collections.abc import Callable, Mapping

import timm
import torch
from torch import Tensor, nn

from qna.models.decoder import create_decoder

SIZE, CLASSES = 32, 5
# tokens of a sequence
LENGTH = 11
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


# name -> makes one; all read images of SIZE pixels, but those of `TOKENS`
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
    "decoder": lambda: create_decoder(
        "decoder_pico", vocabulary=CLASSES, dim=24, depth=3, num_heads=2, kv_heads=1, hidden=32
    ),
}
# those that read tokens, and give logits for each
TOKENS = frozenset({"decoder"})


def inputs(base: str, count: int = 2) -> Tensor:
    """What a kind of network reads."""
    g = torch.Generator().manual_seed(1)
    if base in TOKENS:
        return torch.randint(CLASSES, (count, LENGTH), generator=g)
    return torch.randn(count, 3, SIZE, SIZE, generator=g)


def output_shape(base: str, count: int = 2) -> tuple[int, ...]:
    """Of what it gives."""
    return (count, LENGTH, CLASSES) if base in TOKENS else (count, CLASSES)
