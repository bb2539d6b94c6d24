"""The sizes of GC ViT, as data: a new size is a row."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from qna._core.checks import natural, per_axis, positive
from qna._core.errors import InvalidInput
from qna.models.family import Variant


@dataclass(frozen=True)
class GCViTVariant(Variant):
    """A GC ViT; each stage has twice the channels of the one before.

    Attributes:
        dim: channels of the first stage.
        depths: blocks per stage; every second one has global queries.
        num_heads: per stage.
        window_sizes: positions of a window per stage; an integer for height and width, or both.
        halvings: how often each stage's map is halved to make its global query.
        mlp_ratio: hidden channels of an MLP per channel.
        layer_scale: what a branch is multiplied with at first, channel by channel; None for no such weights.
        drop_path_rate: of the last block in training; it grows linearly from 0.
    """

    dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window_sizes: tuple[int | tuple[int, int], ...] = (7, 7, 14, 7)
    halvings: tuple[int, ...] = (3, 2, 0, 0)
    mlp_ratio: int = 3
    layer_scale: float | None = None
    drop_path_rate: float = 0.0

    def __post_init__(self):
        name = type(self).__name__
        positive(name, dim=self.dim, mlp_ratio=self.mlp_ratio)
        per_stage = {n: getattr(self, n) for n in ("depths", "num_heads", "window_sizes", "halvings")}
        for field, values in per_stage.items():
            if not isinstance(values, tuple | list) or not values or len(values) != len(per_stage["depths"]):
                given = ", ".join(f"{n}={v!r}" for n, v in per_stage.items())
                raise InvalidInput(f"a GC ViT needs one {field} per stage, got {given}")
        positive(name, **{f"depths[{i}]": n for i, n in enumerate(self.depths)})
        natural(name, **{f"halvings[{i}]": n for i, n in enumerate(self.halvings)})
        for i, size in enumerate(self.window_sizes):
            per_axis(f"window_sizes[{i}]", size, 2, minimum=1)
        scale = self.layer_scale
        number = isinstance(scale, int | float) and not isinstance(scale, bool)
        if scale is not None and not (number and 0 < scale < inf):
            raise InvalidInput(f"layer_scale must be above 0 and finite, or None, got {scale!r}")


# rates of stochastic depth are those of the authors' configurations
GCVIT = {
    "qna_gcvit_xxtiny": GCViTVariant(
        64, (2, 2, 6, 2), (2, 4, 8, 16), drop_path_rate=0.2, parameters=11_995_428
    ),
    "qna_gcvit_xtiny": GCViTVariant(
        64, (3, 4, 6, 5), (2, 4, 8, 16), drop_path_rate=0.2, parameters=19_981_294
    ),
    "qna_gcvit_tiny": GCViTVariant(
        64, (3, 4, 19, 5), (2, 4, 8, 16), drop_path_rate=0.2, parameters=28_221_974
    ),
    "qna_gcvit_tiny2": GCViTVariant(
        64, (3, 4, 29, 5), (2, 4, 8, 16), drop_path_rate=0.25, parameters=34_535_654
    ),
    "qna_gcvit_small": GCViTVariant(
        96,
        (3, 4, 19, 5),
        (3, 6, 12, 24),
        mlp_ratio=2,
        layer_scale=1e-5,
        drop_path_rate=0.3,
        parameters=51_092_173,
    ),
    "qna_gcvit_small2": GCViTVariant(
        96, (3, 4, 23, 5), (3, 6, 12, 24), layer_scale=1e-5, drop_path_rate=0.35, parameters=68_615_197
    ),
    "qna_gcvit_base": GCViTVariant(
        128,
        (3, 4, 19, 5),
        (4, 8, 16, 32),
        mlp_ratio=2,
        layer_scale=1e-5,
        drop_path_rate=0.5,
        parameters=90_320_836,
    ),
    "qna_gcvit_large": GCViTVariant(
        192,
        (3, 4, 19, 5),
        (6, 12, 24, 48),
        mlp_ratio=2,
        layer_scale=1e-5,
        drop_path_rate=0.5,
        parameters=202_075_570,
    ),
    # ours, for small images: maps of 8x8 and 4x4 at the named size
    "qna_gcvit_nano_32": GCViTVariant(
        16,
        (2, 2),
        (2, 4),
        window_sizes=(4, 4),
        halvings=(1, 0),
        image_size=32,
        parameters=70_004,
    ),
}
