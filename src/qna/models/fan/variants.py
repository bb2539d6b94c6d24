"""The sizes of fully attentional networks, as data: a new size is a row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

from qna._core.checks import natural, positive, rate
from qna._core.errors import InvalidInput
from qna.models.family import Variant


@dataclass(frozen=True)
class FANVariant(Variant):
    """A fully attentional network.

    Attributes:
        dim: channels.
        depth: blocks.
        num_heads: of the attention of positions, of channels and of the class token.
        conv_dims: channels of two stages of ConvNeXt before the blocks; empty for four convolutions in their
            place.
        conv_depths: blocks of these stages.
        mlp_ratio: hidden channels of the MLPs per channel.
        class_depth: blocks of the class token.
        scales: branches of the pooling of tokens (TAP), of dilation 0 to scales - 1; 0 for no pooling.
        diversity: weight of the loss on attention that is all alike (ADL), in training; above 0 the network
            then gives `WithLosses`.
        threshold: of that loss, in units of even attention.
        drop_path_rate: of every block in training.
    """

    dim: int
    depth: int
    num_heads: int
    conv_dims: tuple[int, ...] = ()
    conv_depths: tuple[int, ...] = ()
    mlp_ratio: int = 4
    class_depth: int = 2
    scales: int = 0
    diversity: float = 0.0
    threshold: float = 2.0
    drop_path_rate: float = 0.0

    def __post_init__(self):
        owner = type(self).__name__
        sizes = ("dim", "depth", "num_heads", "mlp_ratio", "class_depth", "image_size")
        positive(owner, **{name: getattr(self, name) for name in sizes})
        natural(owner, scales=self.scales)
        rate(owner, drop_path_rate=self.drop_path_rate)
        for name in ("conv_dims", "conv_depths"):
            numbers = getattr(self, name)
            if not isinstance(numbers, tuple | list) or len(numbers) not in (0, 2):
                raise InvalidInput(f"{name} must be of two stages, or empty, got {numbers!r}")
            positive(owner, **{f"{name}[{i}]": n for i, n in enumerate(numbers)})
        if len(self.conv_dims) != len(self.conv_depths):
            raise InvalidInput(
                f"conv_dims and conv_depths must tell of as many stages, got {self.conv_dims} and "
                f"{self.conv_depths}"
            )
        if not self.conv_dims and self.dim % 8:
            raise InvalidInput(f"without conv_dims 8 must divide dim, got {self.dim}")
        for name in ("diversity", "threshold"):
            if not 0 <= getattr(self, name) < inf:
                raise InvalidInput(f"{name} must be at least 0 and finite, got {getattr(self, name)}")


_HYBRID = ((128, 256), (3, 3))

FAN = {
    "fan_tiny": FANVariant(192, 12, 4, parameters=7_319_920),
    "fan_small": FANVariant(384, 12, 8, parameters=28_345_336),
    "fan_base": FANVariant(448, 18, 8, parameters=54_350_320),
    "fan_large": FANVariant(480, 24, 10, parameters=80_574_100),
    "fan_tiny_hybrid": FANVariant(192, 8, 8, *_HYBRID, parameters=7_467_240),
    "fan_small_hybrid": FANVariant(384, 10, 8, *_HYBRID, parameters=26_117_944),
    "fan_base_hybrid": FANVariant(448, 16, 8, *_HYBRID, parameters=50_475_048),
    "fan_large_hybrid": FANVariant(480, 22, 10, (128, 256), (3, 5), parameters=76_855_140),
    # ours, for small images: maps of 2 x 2 at the named size, after some of 8 x 8 and 4 x 4 in the second
    "fan_nano_32": FANVariant(32, 2, 4, image_size=32, parameters=100_660),
    "fan_nano_hybrid_32": FANVariant(32, 2, 4, (16, 24), (1, 1), image_size=32, parameters=108_872),
}

_SCALES = 4
# the same with pooled tokens before each block's attention: weights of 9 C K + 9 K^2 + 2 K there
TAP_FAN = {
    f"tap_{name}": replace(
        variant,
        scales=_SCALES,
        parameters=(variant.parameters or 0)
        + variant.depth * (9 * variant.dim * _SCALES + 9 * _SCALES**2 + 2 * _SCALES),
    )
    for name, variant in FAN.items()
}
