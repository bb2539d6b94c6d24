"""Checkpoints of timm's HaloNets of halo attention alone: torch files or safetensors with its names.

The paper's authors published none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qna._core.errors import InvalidInput
from qna._core.tensor_file import read_tensors
from qna._core.torch_file import read_torch
from qna.models.family import Authors
from qna.models.halonet.network import HaloNet
from qna.models.halonet.variants import HALONET

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
        found = read_tensors(path)[0] if path.suffix == ".safetensors" else read_torch(path)
        found = found.get("state_dict", found) if isinstance(found, dict) else found
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror or error}") from None
    except Exception as error:  # what a damaged file makes of the readers is not listed anywhere
        cause = " ".join(str(error).split())
        raise InvalidInput(f"{path} is no checkpoint of PyTorch, or a truncated one: {cause}") from None
    if not isinstance(found, dict) or not all(isinstance(t, Tensor) for t in found.values()):
        raise InvalidInput(f"{path} holds no tensors by name")
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
    made, left = {}, set(weights)
    for key, tensor in own.items():
        theirs = timms_name(key)
        if theirs not in weights:
            raise InvalidInput(f"{name} is no {model}: {theirs} is missing")
        given = weights[theirs]
        # timm's linear maps are convolutions of one tap
        shape = (*tensor.shape, 1, 1) if given.ndim == 4 and tensor.ndim == 2 else tuple(tensor.shape)
        if given.shape != shape:
            hint = f"; timm's own have {_AS_TIMM}" if "pos_embed" in theirs else ""
            raise InvalidInput(
                f"{name} is no {model}: {theirs} has shape {tuple(given.shape)}, not {shape}{hint}"
            )
        if given.is_floating_point() != tensor.is_floating_point():
            raise InvalidInput(f"{name}: {theirs} is {str(given.dtype).removeprefix('torch.')}")
        # of several that share one storage each gets its own
        made[key] = given.reshape(tensor.shape).clone()
        left.discard(theirs)
    if left:
        raise InvalidInput(f"{name} is no {model}: it has {min(left)}, which that model has not")
    return made


def timms_name(key: str) -> str:
    """What timm calls our tensor `key`."""
    for ours, theirs in _NAMES:
        start = key.find(ours)
        if start == 0 or (start > 0 and key[start - 1] == "."):
            return key[:start] + theirs + key[start + len(ours) :]
    return key


AUTHORS = Authors(".pth", read)
