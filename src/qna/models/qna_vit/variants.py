"""The sizes of QnA-ViT, as data: a new size is a row."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qna._core.errors import InvalidInput, check_choice
from qna.models._parts.block import BlockSpec, mixer_builder
from qna.models._parts.merging import PatchMerging
from qna.models.family import Variant


@dataclass(frozen=True)
class QnAViTVariant(Variant):
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
        mixers: per stage what takes the place of all blocks that keep the size of the map: None for the
            paper's own, a name in `qna.mixers.MIXERS`, a pair of a name and arguments, or several of these,
            which take turns block by block. One name serves all stages. What a mixer needs and is not given
            follows the variant: kernel_size, num_queries and head_dim for one with learned queries,
            window_sizes and window_head_dim for any other.
        downsample: the mixer of strided blocks: "qna", the paper's, or "merge", a linear map of every 2x2
            patch, which mixes nothing else.
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
    mixers: str | Sequence[Any] = ()
    downsample: str = "qna"

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
        for name in ("window_blocks", "qna_blocks"):
            if not all(type(n) is int and n >= 0 for n in blocks[name]):
                raise InvalidInput(f"{name} must hold integers of at least 0, got {blocks[name]!r}")
        check_choice("downsample", self.downsample, ("qna", "merge"))
        if not isinstance(self.mixers, str) and len(self.mixers) not in (0, len(self.qna_blocks)):
            raise InvalidInput(
                f"mixers must be one name, or one entry for each of {len(self.qna_blocks)} stages, "
                f"got {self.mixers!r}"
            )
        for name, used in (("head_dim", True), ("window_head_dim", any(self.window_blocks))):
            if used and self.dim % getattr(self, name):
                raise InvalidInput(f"{name} must divide dim={self.dim}, got {getattr(self, name)}")

    def stages(self) -> tuple[tuple[BlockSpec, ...], ...]:
        """The blocks of every stage, in order."""
        return tuple(
            (self._strided(self.dim * 2 ** (i - 1)),) * (i > 0) + self._blocks(i)
            for i in range(len(self.qna_blocks))
        )

    def _blocks(self, i: int) -> tuple[BlockSpec, ...]:
        """Blocks of stage `i` that keep the size of the map."""
        dim, size = self.dim * 2**i, self.window_sizes[i]
        chosen = self.mixers if isinstance(self.mixers, str) else (*self.mixers, *[None] * (i + 1))[i]
        if chosen is None:
            return (self._window(dim, size),) * self.window_blocks[i] + (self._qna(dim),) * self.qna_blocks[i]
        turns = [self._chosen(mixer, dim, size) for mixer in _turns(chosen)]
        return tuple(turns[j % len(turns)] for j in range(self.window_blocks[i] + self.qna_blocks[i]))

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
        if self.downsample == "merge":
            return BlockSpec(PatchMerging, stride=2, window=2)
        return BlockSpec("QnA2d", self._qna(dim).arguments, stride=2, window=self.kernel_size)

    def _window(self, dim: int, size: int) -> BlockSpec:
        arguments = {"num_heads": dim // self.window_head_dim, "window_size": size}
        return BlockSpec("WindowAttention2d", arguments, window=size)

    def _chosen(self, chosen: Any, dim: int, size: int) -> BlockSpec:
        """A block of the mixer that the caller names, with what it needs and was not given."""
        pair = (chosen, {}) if isinstance(chosen, str) else chosen
        whole = isinstance(pair, tuple | list) and len(pair) == 2
        if not whole or not isinstance(pair[0], str) or not isinstance(pair[1], Mapping):
            raise InvalidInput(
                "mixers holds names, pairs of a name and arguments, several of these to take turns, or None, "
                f"got {chosen!r}"
            )
        name, given = pair
        takes = inspect.signature(mixer_builder(name)[0]).parameters
        plain = self._qna(dim) if "num_queries" in takes else self._window(dim, size)
        offered = {"kernel_size": self.kernel_size, **plain.arguments}
        needed = {n: v for n, v in offered.items() if n in takes and n not in given}
        return BlockSpec(name, {**needed, **given}, window=plain.window)


def _turns(chosen: Any) -> Sequence[Any]:
    """The mixers of a stage, which its blocks take in turn, from what a caller gives for one or several."""
    several = isinstance(chosen, tuple | list) and chosen and not isinstance(chosen[-1], Mapping)
    return chosen if several else (chosen,)


QNA_VIT = {
    # the paper's, for ImageNet-1k
    "qna_vit_tiny": QnAViTVariant(64, (0, 0, 4, 2), (2, 3, 2, 0), drop_path_rate=0.05, parameters=15_715_560),
    "qna_vit_tiny_7x7": QnAViTVariant(
        64, (0, 0, 4, 2), (2, 3, 2, 0), kernel_size=7, drop_path_rate=0.05, parameters=15_753_960
    ),
    "qna_vit_small": QnAViTVariant(
        64, (0, 0, 12, 2), (2, 3, 6, 0), drop_path_rate=0.2, parameters=24_971_560
    ),
    "qna_vit_base": QnAViTVariant(
        96, (0, 0, 12, 2), (2, 3, 6, 0), head_dim=16, drop_path_rate=0.5, parameters=55_670_008
    ),
    # ours, for small images; the last stage's windows hold the whole map at the named size
    "qna_vit_nano_16": QnAViTVariant(
        32,
        (0, 0, 1),
        (1, 2, 0),
        (4, 4, 4),
        window_head_dim=16,
        patch_size=2,
        image_size=16,
        parameters=649_472,
    ),
    "qna_vit_micro_32": QnAViTVariant(
        64,
        (0, 0, 2),
        (2, 3, 2),
        (7, 8, 4),
        drop_path_rate=0.05,
        patch_size=2,
        image_size=32,
        parameters=4_790_712,
    ),
    "qna_vit_mini_64": QnAViTVariant(
        64,
        (0, 0, 2, 1),
        (2, 2, 2, 0),
        (7, 7, 8, 8),
        drop_path_rate=0.05,
        patch_size=2,
        image_size=64,
        parameters=10_781_704,
    ),
}
