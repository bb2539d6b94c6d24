"""Checkpoints of OverLoCK's authors, in the trained form and in the deployed one."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qna._core.errors import InvalidInput
from qna.models.authors_torch import read_weights
from qna.models.family import Authors
from qna.models.overlock.network import OverLoCK
from qna.models.overlock.variants import OVERLOCK
from qna.models.whole import check_whole

logger = logging.getLogger("qna")

_MERGED = "is of the deployed form: convert it with deploy=true"
_TRAINED = "is of the trained form: convert it without deploy=true, and call the model's reparameterize()"
# ours -> theirs, of a block with a static kernel
_LARGE_KERNEL = {
    "conv.conv.": "dwconv.",
    "norm.": "proj.0.",
    "mixer_norm.": "proj.2.",
    "mixer.": "proj.1.",
    "excite.": "proj.3.proj.",
    "mlp.fc1.": "proj.4.",
    "mlp.conv.conv.": "proj.6.",
    "mlp.norm.": "proj.7.",
    "mlp.fc2.": "proj.8.",
    "scale.": "ls.",
}
# of a block with dynamic kernels
_DYNAMIC = {
    "context_scale.": "x_scale.",
    "overview_scale.": "h_scale.",
    "conv1.conv.": "dwconv1.",
    "fusion.conv.": "fusion.0.",
    "fusion.norm.": "fusion.1.",
    "fusion.linear.": "fusion.3.",
    "fusion.response.": "fusion.4.",
    "mixer.query.linear.": "weight_query.0.",
    "mixer.query.norm.": "weight_query.1.",
    "mixer.key.linear.": "weight_key.1.",
    "mixer.key.norm.": "weight_key.2.",
    "mixer.taps.": "weight_proj.",
    "mixer.tap_bias": "weight_proj.bias",
    "mixer.small_rpb": "rpb1",
    "mixer.large_rpb": "rpb2",
    "mixer.mixed.linear.": "dyconv_proj.0.",
    "mixer.mixed.norm.": "dyconv_proj.1.",
    "mixer.local_norm.": "lepe.1.",
    "mixer.local.": "lepe.0.",
    "mixer.excite.": "se_layer.proj.",
    "mixer.gate.linear.": "gate.0.",
    "mixer.gate.norm.": "gate.1.",
    "mixer.out_norm.": "proj.0.",
    "mixer.out.": "proj.1.",
    "conv2.conv.": "dwconv2.",
    "mlp.fc1.": "mlp.0.",
    "mlp.conv.conv.": "mlp.2.",
    "mlp.norm.": "mlp.3.",
    "mlp.fc2.": "mlp.4.",
    "scale1.": "ls1.",
    "scale2.": "ls2.",
}
_OUTSIDE = {
    "norm.linear.": "head.0.",
    "norm.norm.": "head.1.",
    "head.fc.": "head.4.",
    "aux_head.norm.": "aux_head.0.",
    "aux_head.fc.": "aux_head.2.",
}


def read(path: Path, model: str, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """State dict of `model` from a file of the authors."""
    return from_authors(read_weights(path), model, arguments, name=str(path))


def from_authors(
    weights: Mapping[str, Tensor],
    model: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    name: str = "the checkpoint",
) -> dict[str, Tensor]:
    """State dict of `model` from the authors', in either form.

    Args:
        weights: theirs. The second head is left out where the model has none, as a line of the log "qna"
            says.
        model: a name in `OVERLOCK`.
        arguments: how the model differs from that variant; ``num_classes`` goes before what the classifier
            in `weights` says.
        name: of the weights, for errors.

    Raises:
        InvalidInput: weights of the other form; the first tensor that is missing, left over, of another shape
            or no floating-point numbers.
    """
    given = dict(arguments or {})
    heads = [n for n in weights if n.startswith("aux_head.")]
    if heads and not given.get("aux_weight"):
        logger.warning(
            "%d tensors of %s are left out, those of its second head: %s ...; a model of aux_weight above 0 "
            "has it",
            *(len(heads), name, heads[0]),
        )
        weights = {n: t for n, t in weights.items() if n not in heads}
    head = weights.get("head.4.weight")
    given = {"num_classes": len(head) if head is not None and head.ndim and len(head) else 1000, **given}
    variant, others = OVERLOCK[model].varied(given)
    with torch.device("meta"):
        own = OverLoCK(variant, **others).state_dict()
    merged = any(n.endswith("lk_origin.bias") for n in weights)
    if merged != variant.deploy and any("lk_origin" in n for n in weights):
        raise InvalidInput(f"{name} {_MERGED if merged else _TRAINED}")
    ends = _ends(variant.depths, variant.focus_depths)
    theirs = {key: authors_name(key, ends) for key in own}
    shapes = {theirs[key]: _their_shape(theirs[key], tuple(t.shape)) for key, t in own.items()}
    check_whole(name, model, shapes, {n: tuple(t.shape) for n, t in weights.items()})
    for key, tensor in own.items():
        if tensor.is_floating_point() and not weights[theirs[key]].is_floating_point():
            dtype = str(weights[theirs[key]].dtype).removeprefix("torch.")
            raise InvalidInput(f"{name}: {theirs[key]} is {dtype}, a weight must be of floating point")
    # of several that share one storage each gets its own
    return {key: weights[theirs[key]].reshape(t.shape).clone() for key, t in own.items()}


def _ends(depths: tuple[int, ...], focus_depths: tuple[int, ...]) -> tuple[int, int]:
    """In the third stage, the first child after the base network, and the overview's linear map."""
    base = 1 + depths[2]
    return base, base + 1 + depths[3]


def authors_name(key: str, ends: tuple[int, int]) -> str:
    """What the authors call our tensor `key`, in a network whose third stage has its parts at `ends`."""
    if place := re.match(r"stem\.(conv|norm)(\d)\.(.+)", key):
        return f"patch_embed1.{3 * (int(place[2]) - 1) + (place[1] == 'norm')}.{place[3]}"
    if not (place := re.match(r"stages\.(\d)\.(\d+)\.(.+)", key)):
        return _renamed(key, _OUTSIDE)
    stage, number, rest = int(place[1]), int(place[2]), place[3]
    if stage == 3:
        return f"sub_blocks4.{number - 1}.{_renamed(rest, _DYNAMIC)}" if number else _halving("x", rest)
    base, overview = ends
    if stage < 2 or number < base:
        return _of_base(stage, number, rest)
    if number > overview:
        return f"sub_blocks3.{number - overview - 1}.{_renamed(rest, _DYNAMIC)}"
    return f"high_level_proj.{rest}" if number == overview else _of_base(3, number - base, rest)


def _of_base(stage: int, number: int, rest: str) -> str:
    """Of a stage of the base network, or of the overview as the fourth."""
    if stage and not number:
        return _halving(stage + 1, rest)
    return f"blocks{stage + 1}.{number - (stage > 0)}.{_renamed(rest, _LARGE_KERNEL)}"


def _halving(which: int | str, rest: str) -> str:
    rest = rest.replace("of_map.", "x_proj.").replace("of_context.", "h_proj.")
    rest = re.sub(r"(^|\.)(conv|norm)\.", lambda m: f"{m[1]}{int(m[2] == 'norm')}.", rest)
    return f"patch_embed{which}.{rest}"


def _renamed(key: str, names: Mapping[str, str]) -> str:
    for ours, theirs in names.items():
        if key.startswith(ours):
            key = theirs + key[len(ours) :]
            break
    key = re.sub(r"proj\.fc([12])\.", lambda m: f"proj.{2 * int(m[1]) - 1}.", key)
    key = re.sub(r"\.large_norm\.", ".origin_bn.", re.sub(r"\.large\.", ".lk_origin.", key))
    key = re.sub(r"\.small(\d+)x(\d+)_norm\.", r".dil_bn_k\1_\2.", key)
    return re.sub(r"\.small(\d+)x(\d+)\.", r".dil_conv_k\1_\2.", key)


def _their_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    leaf = name.rsplit(".", 1)[-1]
    if leaf in ("gamma", "beta"):
        return (1, *shape, 1, 1)
    if re.search(r"(ls\d?|x_scale|h_scale)\.weight$", name):
        return (*shape, 1, 1, 1)
    # linear maps are convolutions of one tap there
    return (*shape, 1, 1) if len(shape) == 2 and leaf == "weight" else shape


AUTHORS = Authors(".pth", read)
