"""Self-attention inside windows that tile the map, with relative position bias, for any map size."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from qna._core import checks
from qna._core.about import About
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.reach import Reach
from qna.parts.rows import PositionRows
from qna.parts.windowed import WindowedAttention, Windows


class WindowAttention2d(WindowedAttention):
    """Multi-head self-attention of each window's positions among themselves (Swin's, Liu et al., ICCV 2021).

    Windows do not overlap and are not shifted: the local self-attention of QnA-ViT's later stages. A map
    that the window does not divide is padded at its end; a window larger than the map attends the whole map.
    With n positions, C channels and windows of K positions it costs 4 n C^2 + 2 n K C multiply-adds.

    Args:
        dim: channels of input and output.
        num_heads: heads; divides `dim`.
        window_size: height and width of a window; an integer for both.
        bias: whether queries, keys, values and output have a bias.
        border: what the padding is. "mask": no key, and gets no weight. "zero": positions of zeros whose
            keys and values are the biases, and which take their share.
        position_bias: whether scores have a bias for each offset between two positions.

    Raises:
        InvalidInput: `num_heads` does not divide `dim`, a size is not positive, or `border` is unknown.
    """

    qkv: nn.Linear

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        window_size: int | Sequence[int],
        bias: bool = False,
        border: str = "mask",
        position_bias: bool = True,
    ):
        super().__init__(
            dim,
            num_heads=num_heads,
            window_size=window_size,
            projection=("qkv", 3),
            bias=bias,
            border=border,
            position_bias=position_bias,
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, H, W, dim)."""
        return self._attended(self._windows(x), x)

    def attention_map(self, x: Tensor) -> Tensor:
        """The softmax of every position over its own window.

        Returns:
            (B, H, W, h, *window), at least fp32; 0 outside the map where that is masked. Where the map is
            smaller than a window that is masked, `window` is the map.
        """
        return self._shares(self._windows(x), x.shape)

    def attention_received(self, x: Tensor) -> Tensor:
        """What each position gets from all positions of its window: (B, H, W), 1 where attention is even.

        What zeros outside the map get is nobody's.
        """
        return self._received(self.attention_rows(x), x.shape)

    def attention_rows(self, x: Tensor) -> PositionRows:
        """Where each position looks in its window: the softmax, mean over heads; zeros outside left out."""
        return self._rows(self.attention_map(x))

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size` = (B, H, W, dim), padding to whole windows included."""
        return size[0] * (self._projected(size) + self._products(size))

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: queries, keys and values twice, while they are brought into windows.

        And where some position of a window is no key, a mask for each window, which the images share.
        """
        return 6 * size[0] * self._padded(size) * self.dim + self._mask_elements(size)

    def reach(self, size: Sequence[int]) -> tuple[Reach, ...]:
        """A window sees itself; windows begin at the map's start."""
        return tuple(map(Reach.of_blocks, self.window_size))

    def _windows(self, x: Tensor) -> Windows:
        """Queries, keys and values of each window."""
        checks.channels_last_map(type(self).__name__, x, self.dim, 2)
        tilings = self._tilings(x.shape)
        query, key, value = self._packed(self.qkv, x, tilings).unbind(0)
        return Windows(query, key, value, self._mask(tilings, query), tilings)


ROW = MixerRow(
    WindowAttention2d,
    About(
        title="Swin Transformer: Hierarchical Vision Transformer using Shifted Windows",
        authors="Liu, Lin, Cao et al.",
        venue="ICCV 2021",
        arxiv="2103.14030",
        read="the paper",
        differs="windows are not shifted, so it is the paper's W-MSA alone; a map that they do not divide "
        "is padded and padded positions are masked; no bias unless asked for",
        status="formula",
    ),
    Example((5, 7), {"num_heads": 2, "window_size": 3}),
    Traits(2, heads=True),
)
