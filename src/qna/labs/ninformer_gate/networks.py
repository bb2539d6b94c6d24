"""A NiNformer and its rivals, made as large as it is."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from qna.bench.subjects.peers.from_timm import timm_module
from qna.labs.ninformer_gate.config import NiNformerGateConfig
from qna.models.registry import create

GATED, MIXER, ATTENTION = "ninformer", "mlp-mixer", "vit"
NETWORKS = (GATED, MIXER, ATTENTION)
CONTROLS = (MIXER, ATTENTION)


def build(name: str, config: NiNformerGateConfig, image: torch.Size, classes: int) -> nn.Module:
    """A contender for images (C, H, W), without dropout; the MLPs of a control make it as large.

    That is, with the fewest hidden channels at which it has no fewer parameters than the NiNformer.
    """
    if name == GATED:
        return _of(name, config, image, classes, config.hidden)
    with torch.device("meta"):
        ours, one, two = (
            parameters(_of(kind, config, image, classes, hidden))
            for kind, hidden in ((GATED, config.hidden), (name, 1), (name, 2))
        )
    # parameters are linear in the hidden channels
    return _of(name, config, image, classes, 1 + max(0, math.ceil((ours - one) / (two - one))))


def parameters(network: nn.Module) -> int:
    """How many the network has."""
    return sum(p.numel() for p in network.parameters())


def attention_macs(config: NiNformerGateConfig, image: torch.Size) -> int:
    """Multiply-adds of an image in products of queries, keys and values, which timm's layer does not tell."""
    # and the class token
    tokens = image[1] // config.patch_size * (image[2] // config.patch_size) + 1
    return 2 * config.control_depth * tokens**2 * config.dim


def _of(name: str, config: NiNformerGateConfig, image: torch.Size, classes: int, hidden: int) -> nn.Module:
    """A network whose MLPs are so wide."""
    arguments: dict[str, Any] = {
        "img_size": tuple(image[1:]), "patch_size": config.patch_size, "in_chans": image[0],
        "num_classes": classes,
    }  # fmt: skip
    if name == GATED:
        sizes = {"dim": config.dim, "hidden": hidden, "depth": config.depth, "mlp_drop": 0.0}
        return create("ninformer_cifar", **arguments, **sizes)
    # half a channel more, so that rounding down meets the number
    ratio = (hidden + 0.5) / config.dim
    if name == MIXER:
        mixer = timm_module("timm.models.mlp_mixer").MlpMixer
        sizes = {"embed_dim": config.dim, "num_blocks": config.control_depth, "mlp_ratio": (ratio, ratio)}
        return mixer(**arguments, **sizes)
    sizes = {"embed_dim": config.dim, "depth": config.control_depth, "mlp_ratio": ratio}
    return create("vit_tiny_patch16_224", **arguments, **sizes, num_heads=config.dim // 16)
