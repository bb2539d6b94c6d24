"""The sizes of HaloNet, as data: a new size is a row."""

from __future__ import annotations

from dataclasses import dataclass

from qna._core.errors import InvalidInput
from qna.mixers import HaloAttention2d
from qna.models.family import Variant


@dataclass(frozen=True)
class HaloNetVariant(Variant):
    """A HaloNet: stages of bottlenecks; every stage but the first halves the map in its first block.

    Attributes:
        block_size: queries per axis of a block of attention.
        halo_size: positions around it that it attends too.
        value_ratio: channels of values per channel of queries and keys.
        expansion: channels that come out of a block per channel of its attention.
        blocks: blocks per stage.
        final_dim: channels of a linear map before the pooling; None for no such map.
        widths: channels of queries and keys, per stage.
        heads: per stage.
        border: as for `HaloAttention2d`.
        tables: as for `HaloAttention2d`.
        drop_path_rate: of the last block in training; it grows linearly from 0.
    """

    block_size: int
    halo_size: int
    value_ratio: float
    expansion: float
    blocks: tuple[int, ...]
    final_dim: int | None = None
    widths: tuple[int, ...] = (64, 128, 256, 512)
    heads: tuple[int, ...] = (4, 8, 8, 8)
    border: str = "zero"
    tables: str = "offsets"
    drop_path_rate: float = 0.0

    def __post_init__(self):
        per_stage = {name: getattr(self, name) for name in ("blocks", "widths", "heads")}
        if not all(isinstance(numbers, tuple | list) for numbers in per_stage.values()) or (
            len({len(numbers) for numbers in per_stage.values()}) != 1
        ):
            given = ", ".join(f"{name}={numbers}" for name, numbers in per_stage.items())
            raise InvalidInput(f"a HaloNet needs one number per stage in each of {given}")
        for name, numbers in per_stage.items():
            if not all(type(n) is int and n >= 1 for n in numbers):
                raise InvalidInput(f"{name} must hold integers of at least 1, got {numbers!r}")
        for name in ("value_ratio", "expansion"):
            ratio = getattr(self, name)
            if not isinstance(ratio, int | float) or not all(
                width * ratio >= 1 and float(width * ratio).is_integer() for width in self.widths
            ):
                raise InvalidInput(
                    f"{name} times each of widths={self.widths} must be a positive integer, got {ratio!r}"
                )
        if self.final_dim is not None and (type(self.final_dim) is not int or self.final_dim < 1):
            raise InvalidInput(f"final_dim must be a positive integer or None, got {self.final_dim!r}")

    def out_dim(self, stage: int) -> int:
        """Channels that come out of the blocks of a stage."""
        return int(self.widths[stage] * self.expansion)

    def attention(self, stage: int, *, stride: int) -> HaloAttention2d:
        """The attention of a block of a stage."""
        width = self.widths[stage]
        return HaloAttention2d(
            width,
            num_heads=self.heads[stage],
            block_size=self.block_size,
            halo_size=self.halo_size,
            stride=stride,
            out_dim=int(width * self.value_ratio),
            border=self.border,
            tables=self.tables,
        )


# exact parameters, counted; timm's halonet_h1, 8,100,056 of them, has 8 heads everywhere and larger tables
HALONET = {
    "halonet_h0": HaloNetVariant(8, 3, 1, 0.5, (3, 3, 7, 3), image_size=256, parameters=5_496_104),
    # timm has a halonet_h1
    "qna_halonet_h1": HaloNetVariant(8, 3, 1, 1, (3, 3, 10, 3), image_size=256, parameters=8_094_056),
    "halonet_h2": HaloNetVariant(8, 3, 1, 1.25, (3, 3, 11, 3), image_size=256, parameters=9_397_928),
    "halonet_h3": HaloNetVariant(
        10, 3, 1, 1.5, (3, 3, 12, 3), final_dim=1024, image_size=320, parameters=11_834_728
    ),
    "halonet_h4": HaloNetVariant(
        12, 2, 1, 3, (3, 3, 12, 3), final_dim=1280, image_size=384, parameters=19_098_088
    ),
    "halonet_h5": HaloNetVariant(
        14, 2, 2.5, 2, (3, 3, 23, 3), final_dim=1536, image_size=448, parameters=30_710_760
    ),
    "halonet_h6": HaloNetVariant(
        8, 4, 3, 2.75, (3, 3, 24, 3), final_dim=1536, image_size=512, parameters=43_441_384
    ),
    "halonet_h7": HaloNetVariant(
        10, 3, 4, 3.5, (3, 3, 26, 3), final_dim=2048, image_size=600, parameters=67_421_288
    ),
}
