"""The sizes of TransNeXt, as data: a new size is a row."""

from __future__ import annotations

from dataclasses import dataclass

from qna._core.checks import positive
from qna._core.errors import InvalidInput
from qna.models.family import Variant


@dataclass(frozen=True)
class TransNeXtVariant(Variant):
    """A TransNeXt; each stage has twice the channels of the one before.

    Attributes:
        dim: channels of the first stage.
        depths: blocks per stage.
        mlp_ratios: per stage; a gated MLP has two thirds of so many hidden channels per channel, twice.
        pool_ratios: per stage the positions per axis of a cell of the pooled map; 1 for attention of the
            whole map, without a neighbourhood or cells.
        head_dim: channels per head.
        kernel_size: positions per axis of a neighbourhood, odd.
        pool_size: cells per axis, whatever the size of the map; None for what `pool_ratios` gives.
        patch_size: pixels per axis of a position of the first map.
        pretrain_size: pixels per axis of the images in training, by which all distances are scaled, also
            where a network is tuned or run at another size.
        drop_path_rate: of the last block in training; it grows linearly from 0.
    """

    dim: int
    depths: tuple[int, ...]
    mlp_ratios: tuple[int, ...] = (8, 8, 4, 4)
    pool_ratios: tuple[int, ...] = (8, 4, 2, 1)
    head_dim: int = 24
    kernel_size: int = 3
    pool_size: int | None = None
    patch_size: int = 4
    pretrain_size: int = 224
    drop_path_rate: float = 0.0

    def __post_init__(self):
        positive(
            type(self).__name__,
            **{name: getattr(self, name) for name in ("dim", "head_dim", "patch_size", "pretrain_size")},
        )
        per_stage = {name: getattr(self, name) for name in ("depths", "mlp_ratios", "pool_ratios")}
        for name, numbers in per_stage.items():
            if not isinstance(numbers, tuple | list) or not numbers:
                raise InvalidInput(f"{name} must be one number per stage, got {numbers!r}")
            if not all(type(n) is int and n > 0 for n in numbers):
                raise InvalidInput(f"{name} must hold positive integers, got {numbers!r}")
        if len({len(numbers) for numbers in per_stage.values()}) != 1:
            given = ", ".join(f"{name}={numbers}" for name, numbers in per_stage.items())
            raise InvalidInput(f"a TransNeXt needs one number per stage in each of {given}")
        if self.dim % self.head_dim:
            raise InvalidInput(f"head_dim must divide dim={self.dim}, got {self.head_dim}")


# rates of stochastic depth are those of the authors' configurations
TRANSNEXT = {
    "transnext_micro": TransNeXtVariant(48, (2, 2, 15, 2), drop_path_rate=0.15, parameters=12_809_304),
    "transnext_tiny": TransNeXtVariant(72, (2, 2, 15, 2), drop_path_rate=0.25, parameters=28_258_960),
    "transnext_small": TransNeXtVariant(72, (5, 5, 22, 5), drop_path_rate=0.45, parameters=49_741_564),
    "transnext_base": TransNeXtVariant(96, (5, 5, 23, 5), drop_path_rate=0.6, parameters=89_721_496),
    # aggregated attention in all stages
    "transnext_micro_aaaa": TransNeXtVariant(
        48,
        (2, 2, 15, 2),
        pool_ratios=(16, 8, 4, 2),
        pretrain_size=256,
        image_size=256,
        drop_path_rate=0.15,
        parameters=13_114_008,
    ),
    # ours, for small images: maps of 8x8 and 4x4 at the named size
    "transnext_nano_16": TransNeXtVariant(
        32,
        (2, 2),
        mlp_ratios=(3, 3),
        pool_ratios=(2, 1),
        head_dim=16,
        patch_size=2,
        pretrain_size=16,
        image_size=16,
        parameters=208_904,
    ),
}
