"""The sizes of QnA-UNet, as data: a new size is a row."""

from __future__ import annotations

from dataclasses import dataclass

from qna._core.errors import InvalidInput
from qna.models._parts.block import BlockSpec
from qna.models.family import Variant


@dataclass(frozen=True)
class QnAUNetVariant(Variant):
    """A QnA-UNet: an encoder of stages and a decoder of one level fewer.

    From the second stage on, a stage begins with a strided QnA block that doubles channels and heads.

    Attributes:
        dim: channels of the first stage.
        encoder_blocks: QnA blocks per stage, the strided one not counted.
        decoder_blocks: QnA blocks per level, the finest first, the one that doubles the map not counted.
        head_dim: channels per head.
        kernel_size: window of all QnA.
        num_queries: learned queries per head of blocks that do not enlarge the map.
        patch_size: pixels per axis of a patch.
        drop_path_rate: of the encoder's last block in training; it grows linearly from 0.
    """

    dim: int
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]
    head_dim: int = 8
    kernel_size: int = 3
    num_queries: int = 2
    patch_size: int = 2
    drop_path_rate: float = 0.0

    def __post_init__(self):
        stages, levels = len(self.encoder_blocks), len(self.decoder_blocks)
        if stages != levels + 1:
            raise InvalidInput(
                "a QnA-UNet needs one level of its decoder fewer than stages of its encoder, got "
                f"encoder_blocks={self.encoder_blocks} and decoder_blocks={self.decoder_blocks}"
            )
        if not all(type(n) is int and n >= 0 for n in (*self.encoder_blocks, *self.decoder_blocks)):
            raise InvalidInput(
                "encoder_blocks and decoder_blocks must hold integers of at least 0, got "
                f"{self.encoder_blocks} and {self.decoder_blocks}"
            )
        if self.dim < 1 or self.head_dim < 1 or self.dim % self.head_dim:
            raise InvalidInput(f"head_dim must divide dim={self.dim}, got {self.head_dim}")

    @property
    def levels(self) -> range:
        """The decoder's levels by the encoder's stage that each ends at, coarsest first."""
        return range(len(self.decoder_blocks) - 1, -1, -1)

    def stages(self) -> tuple[tuple[BlockSpec, ...], ...]:
        """The blocks of the encoder's stages, in order."""
        return tuple(
            (self.block(self.dim * 2 ** (i - 1), stride=2),) * (i > 0)
            + (self.block(self.dim * 2**i),) * count
            for i, count in enumerate(self.encoder_blocks)
        )

    def block(self, dim: int, stride: int = 1) -> BlockSpec:
        """A QnA block on maps of `dim` channels."""
        arguments = {
            "num_heads": dim // self.head_dim,
            "kernel_size": self.kernel_size,
            "num_queries": self.num_queries,
        }
        return BlockSpec("QnA2d", arguments, stride=stride, window=self.kernel_size)


QNA_UNET = {
    "qna_unet_nano": QnAUNetVariant(
        dim=24, encoder_blocks=(1, 1, 1, 1), decoder_blocks=(1, 1, 1), image_size=96, parameters=1_405_029
    ),
    "qna_unet_micro": QnAUNetVariant(
        dim=32, encoder_blocks=(1, 2, 2, 2), decoder_blocks=(1, 1, 1), image_size=128, parameters=3_443_189
    ),
    "qna_unet_tiny": QnAUNetVariant(
        dim=64,
        encoder_blocks=(2, 3, 6, 2),
        decoder_blocks=(1, 1, 2),
        patch_size=4,
        image_size=512,
        parameters=17_568_853,
        drop_path_rate=0.1,
    ),
}
