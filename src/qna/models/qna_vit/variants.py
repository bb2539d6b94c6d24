"""The sizes of QnA-ViT, as data: a new size is a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from qna._core.errors import InvalidInput


@dataclass(frozen=True)
class BlockSpec:
    """One block of a backbone.

    Attributes:
        mixer: name in `qna.mixers.MIXERS`.
        arguments: how it is built, beside its number of channels.
        stride: positions of the incoming map per position of the outgoing one.
        window: positions per axis that it mixes, which a pooling skip path takes too.
    """

    mixer: str
    arguments: Mapping[str, Any]
    stride: int = 1
    window: int = 1


@dataclass(frozen=True)
class QnAViTVariant:
    """A QnA-ViT: per stage first self-attention in windows, then QnA.

    From the second stage on, a stage begins with a strided QnA block that doubles channels and heads (the
    authors count it as the end of the stage before).

    Attributes:
        dim: channels of the first stage.
        window_blocks: blocks of self-attention in windows, per stage.
        qna_blocks: QnA blocks per stage, the strided one not counted.
        window_sizes: windows of the self-attention, per stage.
        head_dim: channels per QnA head.
        window_head_dim: channels per head of the self-attention.
        kernel_size: window of QnA.
        num_queries: learned queries per QnA head.
        drop_path_rate: of the last block in training; it grows linearly from 0.
        patch_size: pixels per axis of a patch.
        image_size: pixels per axis that the variant is meant for; it takes any size.
    """

    dim: int
    window_blocks: tuple[int, ...]
    qna_blocks: tuple[int, ...]
    window_sizes: tuple[int, ...] = (7, 7, 14, 7)
    head_dim: int = 8
    window_head_dim: int = 32
    kernel_size: int = 3
    num_queries: int = 2
    drop_path_rate: float = 0.0
    patch_size: int = 4
    image_size: int = 224

    def __post_init__(self):
        blocks = {name: getattr(self, name) for name in ("window_blocks", "qna_blocks", "window_sizes")}
        if not all(isinstance(numbers, tuple | list) for numbers in blocks.values()) or (
            len({len(numbers) for numbers in blocks.values()}) != 1
        ):
            given = ", ".join(f"{name}={numbers}" for name, numbers in blocks.items())
            raise InvalidInput(f"a QnA-ViT needs one number per stage in each of {given}")
        for name in ("dim", "head_dim", "window_head_dim"):
            number = getattr(self, name)
            if type(number) is not int or number < 1:
                raise InvalidInput(f"{name} must be a positive integer, got {number!r}")
        for name, used in (("head_dim", True), ("window_head_dim", any(self.window_blocks))):
            if used and self.dim % getattr(self, name):
                raise InvalidInput(f"{name} must divide dim={self.dim}, got {getattr(self, name)}")

    def varied(self, arguments: dict[str, Any]) -> tuple[QnAViTVariant, dict[str, Any]]:
        """This variant with those of `arguments` that are its fields, and the arguments that are not."""
        own = {field.name for field in fields(self)} & set(arguments)
        others = {name: value for name, value in arguments.items() if name not in own}
        return replace(self, **{name: arguments[name] for name in own}), others

    def stages(self) -> tuple[tuple[BlockSpec, ...], ...]:
        """The blocks of every stage, in order."""
        rows = zip(self.window_blocks, self.qna_blocks, self.window_sizes, strict=True)
        return tuple(
            (self._strided(self.dim * 2 ** (i - 1)),) * (i > 0)
            + (self._window(self.dim * 2**i, size),) * windowed
            + (self._qna(self.dim * 2**i),) * learned
            for i, (windowed, learned, size) in enumerate(rows)
        )

    @property
    def pool_heads(self) -> int:
        """Heads of a pooling with learned queries: those of QnA in the last stage."""
        return self.dim * 2 ** (len(self.qna_blocks) - 1) // self.head_dim

    def _qna(self, dim: int) -> BlockSpec:
        arguments = {
            "num_heads": dim // self.head_dim,
            "kernel_size": self.kernel_size,
            "num_queries": self.num_queries,
        }
        return BlockSpec("QnA2d", arguments, window=self.kernel_size)

    def _strided(self, dim: int) -> BlockSpec:
        plain = self._qna(dim)
        return BlockSpec("QnA2d", {**plain.arguments, "stride": 2}, stride=2, window=self.kernel_size)

    def _window(self, dim: int, size: int) -> BlockSpec:
        arguments = {"num_heads": dim // self.window_head_dim, "window_size": size}
        return BlockSpec("WindowAttention2d", arguments, window=size)


QNA_VIT = {
    # the paper's, for ImageNet-1k
    "qna_vit_tiny": QnAViTVariant(64, (0, 0, 4, 2), (2, 3, 2, 0), drop_path_rate=0.05),
    "qna_vit_tiny_7x7": QnAViTVariant(64, (0, 0, 4, 2), (2, 3, 2, 0), kernel_size=7, drop_path_rate=0.05),
    "qna_vit_small": QnAViTVariant(64, (0, 0, 12, 2), (2, 3, 6, 0), drop_path_rate=0.2),
    "qna_vit_base": QnAViTVariant(96, (0, 0, 12, 2), (2, 3, 6, 0), head_dim=16, drop_path_rate=0.5),
    # ours, for small images; the last stage's windows hold the whole map at the named size
    "qna_vit_nano_16": QnAViTVariant(
        32, (0, 0, 1), (1, 2, 0), (4, 4, 4), window_head_dim=16, patch_size=2, image_size=16
    ),
    "qna_vit_micro_32": QnAViTVariant(
        64, (0, 0, 2), (2, 3, 2), (7, 8, 4), drop_path_rate=0.05, patch_size=2, image_size=32
    ),
    "qna_vit_mini_64": QnAViTVariant(
        64, (0, 0, 2, 1), (2, 2, 2, 0), (7, 7, 8, 8), drop_path_rate=0.05, patch_size=2, image_size=64
    ),
}
