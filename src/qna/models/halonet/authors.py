"""Checkpoints of timm's HaloNets of halo attention alone: torch files or safetensors with its names.

The paper's authors published none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qna._core.backends import short
from qna._core.errors import InvalidInput
from qna._core.state_dict import read_state_dict
from qna._core.tensor_file import read_tensors
from qna.models.family import Authors
from qna.models.halonet.network import HaloNet
from qna.models.halonet.variants import HALONET
from qna.models.whole import check_whole

# ours -> timm's, from the end of a name
_NAMES = (
    ("stem.conv.", "stem.conv1.conv."),
    ("stem.norm.", "stem.conv1.bn."),
    ("reduce.linear.", "conv1_1x1.conv."),
    ("reduce.norm.norm.", "conv1_1x1.bn."),
    ("expand.linear.", "conv3_1x1.conv."),
    ("expand.norm.norm.", "conv3_1x1.bn."),
    ("shortcut.linear.", "shortcut.conv."),
    ("shortcut.norm.norm.", "shortcut.bn."),
    ("mixer_norm.norm.", "post_attn."),
    ("mixer.row_embedding", "self_attn.pos_embed.height_rel"),
    ("mixer.column_embedding", "self_attn.pos_embed.width_rel"),
    ("mixer.", "self_attn."),
    ("norm.linear.", "final_conv.conv."),
    ("norm.norm.norm.", "final_conv.bn."),
)
_AS_TIMM = "heads=(8, 8, 8, 8) and tables='window'"


def read(path: Path, model: str, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """State dict of `model` from a file with timm's names."""
    try:
        found = read_tensors(path)[0] if path.suffix == ".safetensors" else read_state_dict(path)
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror or error}") from None
    except Exception as error:  # what a damaged file makes of the readers is not listed anywhere
        cause = " ".join(str(error).split())
        raise InvalidInput(f"{path} is no checkpoint of PyTorch, or a truncated one: {cause}") from None
    return from_timm(found, model, arguments, name=str(path))


def from_timm(
    weights: Mapping[str, Tensor],
    model: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    name: str = "the checkpoint",
) -> dict[str, Tensor]:
    """State dict of `model` from timm's.

    Args:
        weights: timm's state dict.
        model: a name in `HALONET`.
        arguments: how the model differs from that variant; timm's own weights need `heads` and `tables`.
        name: of the weights, for errors.

    Raises:
        InvalidInput: the first tensor that is missing, left over or of another shape.
    """
    head = weights.get("head.fc.weight")
    classes = len(head) if head is not None and head.ndim == 2 else 1000
    with torch.device("meta"):
        own = HaloNet.of(HALONET[model], num_classes=classes, **(arguments or {})).state_dict()
    # timm's linear maps but the last are convolutions of one tap
    shapes = {
        timms_name(key): (*t.shape, 1, 1) if _is_linear(key, t) else tuple(t.shape) for key, t in own.items()
    }
    try:
        check_whole(name, model, shapes, {key: tuple(t.shape) for key, t in weights.items()})
    except InvalidInput as error:
        hint = f"; timm's own have {_AS_TIMM}" if "pos_embed" in str(error) else ""
        raise InvalidInput(f"{error}{hint}") from None
    for key, t in own.items():
        given = weights[timms_name(key)]
        if given.is_floating_point() != t.is_floating_point():
            raise InvalidInput(f"{name}: {timms_name(key)} is {short(given.dtype)}")
    # of several that share one storage each gets its own
    return {key: weights[timms_name(key)].reshape(t.shape).clone() for key, t in own.items()}


def _is_linear(key: str, tensor: Tensor) -> bool:
    return key.endswith(".weight") and tensor.ndim == 2 and not key.startswith("head.")


def timms_name(key: str) -> str:
    """What timm calls our tensor `key`."""
    for ours, theirs in _NAMES:
        start = key.find(ours)
        if start == 0 or (start > 0 and key[start - 1] == "."):
            return key[:start] + theirs + key[start + len(ours) :]
    return key


AUTHORS = Authors(".pth", read)
