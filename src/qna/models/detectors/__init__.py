"""Detectors of transformers around any backbone that timm knows, ours among them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qna._core.about import About
from qna._core.errors import InvalidInput, check_choice, require
from qna.models.detectors.backbone import Levels, transformers
from qna.models.detectors.detector import (
    DetectedBoxes,
    Detector,
    Found,
    Score,
    detections,
    sigmoid_scores,
    softmax_scores,
)
from qna.models.detectors.detr import Detr
from qna.models.detectors.rt_detr import RTDetr

# transformers checks the types of its configurations with errors of this library
hub = require("huggingface_hub.errors", extra="dense", purpose="qna.models.detectors")


@dataclass(frozen=True)
class DetectorRow:
    """A detector that can be chosen.

    Attributes:
        name: that it is chosen by.
        about: the published work.
        model: its class.
        config: transformers' class of configurations.
        levels: maps of the backbone that it reads, the last so many.
        squares: it reads images of one size alone, which data brings to a square; else of any.
        derived: what its configuration says of the backbone's maps and follows from them.
        score: of its logits.
        classifiers: names of its layers that end in the classes.
    """

    name: str
    about: About
    model: type[Any]
    config: type[Any]
    levels: int
    squares: bool
    derived: Callable[[Levels, Mapping[str, Any]], dict[str, Any]]
    score: Score
    classifiers: tuple[str, ...]


def _pyramid(levels: Levels, given: Mapping[str, Any]) -> dict[str, Any]:
    """RT-DETR's fields on its maps."""
    if any(2 * fine != coarse for fine, coarse in zip(levels.strides, levels.strides[1:], strict=False)):
        raise InvalidInput(
            f"RT-DETR needs maps that halve from one to the next, got strides {list(levels.strides)}; "
            "take DETR"
        )
    width = given.get("encoder_hidden_dim", 256)
    return {
        "encoder_in_channels": list(levels.channels),
        "feat_strides": list(levels.strides),
        "decoder_in_channels": [width] * len(levels.channels),
        "num_feature_levels": len(levels.channels),
        "encode_proj_layers": [len(levels.channels) - 1],
    }


DETECTORS = {
    row.name: row
    for row in (
        DetectorRow(
            "detr",
            About(
                title="End-to-End Object Detection with Transformers",
                authors="Carion, Massa, Synnaeve et al.",
                venue="ECCV 2020",
                arxiv="2005.12872",
                read="transformers 5.24 (Apache-2.0), whose code runs",
                differs="the backbone sees no padding; the loss is normalised by the boxes of its batch",
                status="exact",
            ),
            Detr,
            transformers.DetrConfig,
            levels=1,
            squares=False,
            derived=lambda levels, given: {},
            score=softmax_scores,
            classifiers=("class_labels_classifier",),
        ),
        DetectorRow(
            "rt-detr",
            About(
                title="DETRs Beat YOLOs on Real-time Object Detection",
                authors="Zhao, Lv, Xu et al.",
                venue="CVPR 2024",
                arxiv="2304.08069",
                read="transformers 5.24 (Apache-2.0), whose code runs",
                differs="padding is refused",
                status="exact",
            ),
            RTDetr,
            transformers.RTDetrConfig,
            levels=3,
            squares=True,
            derived=_pyramid,
            score=sigmoid_scores,
            classifiers=(
                "model.decoder.class_embed",
                "model.enc_score_head",
                "model.denoising_class_embed",
            ),
        ),
    )
}
_OURS = ("backbone_config", "num_channels", "id2label", "label2id")


def create_detector(
    name: str,
    backbone: str,
    *,
    classes: Sequence[str],
    channels: int = 3,
    backbone_arguments: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> Detector:
    """Make a detector around a backbone.

    Args:
        name: in `DETECTORS`.
        backbone: any name that timm knows, ours among them.
        classes: names of what is looked for.
        channels: of the images.
        backbone_arguments: of ``timm.create_model``: pretrained, drop_path_rate, or the backbone's own.
        arguments: fields of transformers' configuration: num_queries, d_model, encoder_layers, ...

    Raises:
        UnknownName: for a detector, backbone or argument that does not exist, with the nearest names.
        InvalidInput: what was asked for cannot be built.
    """
    row, own = DETECTORS[check_choice("detector", name, DETECTORS)], dict(backbone_arguments or {})
    pretrained = own.pop("pretrained", False)
    levels = Levels(backbone, row.levels, channels=channels, **own)
    derived = row.derived(levels, arguments)
    known = {field.name for field in dataclasses.fields(row.config)} - {*_OURS, *derived}
    for argument in arguments:
        check_choice(f"argument of {name}", argument, known)
    labels = dict(enumerate(classes))
    try:
        config = row.config(
            backbone_config=levels.config,
            num_channels=channels,
            id2label=labels,
            label2id={label: number for number, label in labels.items()},
            **{"auxiliary_loss": True, **arguments, **derived},
        )
        model = row.model(config)
    except (TypeError, ValueError, RuntimeError, AssertionError, hub.StrictDataclassError) as error:
        given = ", ".join(f"{key}={value}" for key, value in arguments.items()) or "its own arguments"
        cause = " ".join(str(error).split())
        raise InvalidInput(f"{name} around {backbone} cannot be built with {given}: {cause}") from error
    if pretrained:
        levels.load_pretrained(model.model.backbone.model)
    return Detector(model, row.score, row.classifiers)


__all__ = [
    "DETECTORS",
    "DetectorRow",
    "DetectedBoxes",
    "Detector",
    "Detr",
    "Found",
    "RTDetr",
    "create_detector",
    "detections",
]
