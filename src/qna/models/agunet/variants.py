"""Sizes and switches of AGUNet and its kin, as data: a new size is a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from qna._core import checks
from qna._core.errors import InvalidInput, check_choice


@dataclass(frozen=True)
class AGUNetVariant:
    """Channels of a network, and its switches.

    Attributes:
        channels: of each level, the bottleneck's last; between two the volume is halved.
        gate: of skips: none, concatenated (the published one) or added (Attention U-Net's).
        dual: attention of positions and channels at the bottleneck.
        guided: the bottleneck's map is joined at every level of the decoder.
        multi_scale: the volume, averaged down, is read at every level of the encoder.
        deep_supervision: every level of the decoder has a head and a loss.
        joined_norm: norm and ReLU of the decoder come behind the joining, as in DAUNet.
        dropout: of whole channels behind each convolution of a block.
        attention_dropout: of whole channels inside the dual attention.
        parameters: exact count with one channel and two classes; None where a field was changed.
    """

    channels: tuple[int, ...]
    gate: Literal["none", "concatenated", "added"] = "none"
    dual: bool = False
    guided: bool = False
    multi_scale: bool = False
    deep_supervision: bool = False
    joined_norm: bool = False
    dropout: float = 0.0
    attention_dropout: float = 0.5
    parameters: int | None = None

    def __post_init__(self):
        if not isinstance(self.channels, tuple) or len(self.channels) < 2:
            raise InvalidInput(
                f"channels must be those of two levels or more, 16,32,64 for example, got {self.channels!r}"
            )
        for dim in self.channels:
            checks.positive("AGUNet", channels=dim)
        check_choice("gate", self.gate, ("none", "concatenated", "added"))
        for name in ("dual", "guided", "multi_scale", "deep_supervision", "joined_norm"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidInput(f"{name} must be True or False, got {getattr(self, name)!r}")
        checks.rate("AGUNet", dropout=self.dropout, attention_dropout=self.attention_dropout)

    def varied(self, name: str, arguments: Mapping[str, Any]) -> AGUNetVariant:
        """This variant, called `name`, with other fields.

        Raises:
            UnknownName: for what is no field, with the nearest.
        """
        own = {field.name for field in fields(self)} - {"parameters"}
        for argument in arguments:
            check_choice(f"argument of {name}", argument, own)
        return replace(self, **arguments, parameters=None) if arguments else self


_NANO, _MICRO = (8, 16, 32, 64), (16, 32, 64, 128, 128)
_DAUNET: dict[str, Any] = {"dual": True, "joined_norm": True}
UNET = {
    "unet3d_nano": AGUNetVariant(_NANO, parameters=402_354),
    "unet3d_micro": AGUNetVariant(_MICRO, parameters=4_262_626),
}
VARIANTS = {
    "agunet_nano": AGUNetVariant(_NANO, gate="concatenated", parameters=403_931),
    "agunet_micro": AGUNetVariant(_MICRO, gate="concatenated", parameters=4_285_358),
    "daunet_nano": AGUNetVariant(_NANO, **_DAUNET, parameters=854_756),
    "daunet_micro": AGUNetVariant(_MICRO, **_DAUNET, parameters=6_070_852),
    "dagunet_nano": AGUNetVariant(_NANO, **_DAUNET, guided=True, parameters=987_980),
    "dagunet_micro": AGUNetVariant(_MICRO, **_DAUNET, guided=True, parameters=7_488_532),
}
