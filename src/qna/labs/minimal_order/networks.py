"""The same transformer with ever fewer matrices, and the whole one made as small as the smallest."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from qna.labs.minimal_order.config import MinimalOrderConfig
from qna.models.registry import create

FULL, COLLAPSED, MINIMAL, NARROW = "full", "collapsed", "minimal", "narrow full"
# in the order in which parameters fall: what blocks of each are made of
FORMS: dict[str, dict[str, Any]] = {
    FULL: {"qk": "full", "value": "full"},
    COLLAPSED: {"qk": "collapsed", "value": "full"},
    MINIMAL: {"qk": "collapsed", "value": "none", "mlp_ratio": 0},
}
NETWORKS = (*FORMS, NARROW)


def build(name: str, config: MinimalOrderConfig, image: torch.Size, classes: int) -> nn.Module:
    """A contender for images (C, H, W), of one head and without dropout.

    The narrow one is whole and has the fewest channels with which it has no fewer parameters than the
    minimal one.
    """
    if name != NARROW:
        return _of(config, image, classes, config.dim, FORMS[name])
    with torch.device("meta"):
        enough = parameters(_of(config, image, classes, config.dim, FORMS[MINIMAL]))
        dim = next(
            dim
            for dim in range(1, config.dim + 1)
            if parameters(_of(config, image, classes, dim, FORMS[FULL])) >= enough
        )
    return _of(config, image, classes, dim, FORMS[FULL])


def parameters(network: nn.Module) -> int:
    """How many the network has."""
    return sum(p.numel() for p in network.parameters())


def _of(
    config: MinimalOrderConfig, image: torch.Size, classes: int, dim: int, form: dict[str, Any]
) -> nn.Module:
    sizes = {
        "patch_size": config.patch_size, "depth": config.depth, "mlp_ratio": config.mlp_ratio, "drop": 0.0,
    }  # fmt: skip
    return create(
        "minimal_mnist_full_mlp",
        img_size=tuple(image[1:]),
        in_chans=image[0],
        num_classes=classes,
        dim=dim,
        **{**sizes, **form},
    )
