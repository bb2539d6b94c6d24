"""Networks that give every pixel a class: families of ours, or decoders around any backbone of timm."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from qna._core.errors import InvalidInput, check_choice, require
from qna.models._parts.decay import exempt_names
from qna.models.registry import create
from qna.models.timm_entry import FAMILY_OF

DECODER = "unet"


def create_segmenter(
    name: str,
    *,
    num_classes: int,
    in_chans: int = 3,
    decoder: str | None = None,
    decoder_arguments: Mapping[str, Any] | None = None,
    pretrained: bool = False,
    **arguments: Any,
) -> nn.Module:
    """Make a network (B, in_chans, H, W) -> logits (B, num_classes, H, W), of any height and width.

    Args:
        name: a model of ours that segments by itself, or any model of timm that gives features, ours too.
        num_classes: number of logits per pixel.
        in_chans: channels of the image.
        decoder: of segmentation_models_pytorch around a backbone: unet, fpn, upernet, deeplabv3plus and its
            others; None for unet. A model that segments by itself takes none.
        decoder_arguments: of the decoder, as its class takes them.
        pretrained: start the backbone from the weights that timm knows.
        arguments: of the model.

    Raises:
        UnknownName: for a model or decoder that is not known, with the nearest names.
        MissingExtra: if segmentation_models_pytorch is not installed, and a decoder is needed.
        InvalidInput: if the model or decoder refuses its arguments, or they do not fit each other.
    """
    family = FAMILY_OF.get(name)
    if family is None or family.task != "segmentation":
        backbone = _Backbone(name, pretrained, in_chans, arguments)
        return DecodedBackbone(backbone, decoder or DECODER, dict(decoder_arguments or {}), num_classes)
    if decoder is not None or decoder_arguments:
        raise InvalidInput(
            f"model {name} segments by itself and takes no decoder, got {decoder or 'arguments'}"
        )
    return create(name, num_classes=num_classes, in_chans=in_chans, pretrained=pretrained, **arguments)


class _Backbone:
    """What is to be known of a model of timm before a decoder is put around it.

    Attributes:
        reductions: pixels per position of its maps, along each axis.
        depth: of the pyramid in the decoder's terms, whose first map is half as large as the image.
    """

    def __init__(self, name: str, pretrained: bool, channels: int, arguments: Mapping[str, Any]):
        self.name, self.pretrained, self.channels, self.arguments = name, pretrained, channels, arguments
        plain = create(name, features_only=True, **arguments)
        info: Any = plain.feature_info
        self.reductions = tuple(info.reduction())
        count, first = len(self.reductions), self.reductions[0]
        if first not in (1, 2, 4) or self.reductions != tuple(first * 2**i for i in range(count)):
            raise InvalidInput(
                "a decoder needs maps of a backbone that halve from 1, 2 or 4 pixels per position on, and "
                f"those of {name} have {', '.join(map(str, self.reductions))}"
            )
        self.depth = count + first.bit_length() - 2


class DecodedBackbone(nn.Module):
    """A backbone in a decoder of segmentation_models_pytorch, for images of any size.

    Images are filled up to the next multiple of the coarsest map's step by repeating the last row and column,
    and the logits of what was added are cut off.

    Args:
        backbone: of timm.
        decoder: name of the architecture.
        decoder_arguments: of its class.
        classes: number of logits per pixel.
    """

    def __init__(self, backbone: _Backbone, decoder: str, decoder_arguments: dict[str, Any], classes: int):
        super().__init__()
        smp = require("segmentation_models_pytorch", extra="dense", purpose="a decoder around a backbone")
        # dpt is for plain ViTs, which give no pyramid
        builds = {name: build for name, build in smp.MODEL_ARCHITECTURES_MAPPING.items() if name != "dpt"}
        build = builds[check_choice("decoder", decoder, builds)]
        known = inspect.signature(build.__init__).parameters
        for argument in decoder_arguments:
            check_choice(f"argument of decoder {decoder}", argument, known.keys() - _OURS)
        depth = min(backbone.depth, known["encoder_depth"].default)
        given = {"encoder_depth": depth, **decoder_arguments}
        channels = known["decoder_channels"].default if "decoder_channels" in known else None
        if isinstance(channels, tuple) and "decoder_channels" not in given:
            # a shallower pyramid has fewer maps: the finest ones, so that the last has as many channels
            given["decoder_channels"] = channels[-given["encoder_depth"] :]
        try:
            self.network = build(
                encoder_name=f"tu-{backbone.name}",
                encoder_weights="timm" if backbone.pretrained else None,
                in_channels=backbone.channels,
                classes=classes,
                **given,
                **backbone.arguments,
            )
        except (TypeError, ValueError, AssertionError, RuntimeError, KeyError, IndexError) as error:
            told = ", ".join(f"{k}={v}" for k, v in {**given, **backbone.arguments}.items())
            cause = " ".join(str(error).split())
            raise InvalidInput(
                f"decoder {decoder} around {backbone.name} cannot be built with {told}: {cause}"
            ) from error
        self.step = max(self.network.encoder.output_stride, backbone.reductions[-1])
        self.num_classes = classes

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, classes, H, W)."""
        height, width = x.shape[2:]
        filled = F.pad(x, (0, -width % self.step, 0, -height % self.step), mode="replicate")
        logits = self.network(filled)
        if logits.shape[2:] != filled.shape[2:]:  # some decoders are fixed to one depth of the pyramid
            logits = F.interpolate(logits, filled.shape[2:], mode="bilinear")
        return logits[:, :, :height, :width]

    def no_weight_decay(self) -> set[str]:
        """Names that the backbone exempts from decay."""
        return exempt_names(self)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Let the backbone keep only its blocks' inputs for the backward pass.

        Raises:
            InvalidInput: if it cannot.
        """
        inner = self.network.encoder.model
        inner = getattr(inner, "model", inner)
        if not hasattr(inner, "set_grad_checkpointing"):
            raise InvalidInput(f"{type(inner).__name__} has no gradient checkpointing")
        inner.set_grad_checkpointing(enable)


# arguments of every decoder's class that `create_segmenter` gives itself, and the one for anything else
_OURS = {
    "self",
    "encoder_name",
    "encoder_weights",
    "in_channels",
    "classes",
    "aux_params",
    "activation",
    "kwargs",
}
