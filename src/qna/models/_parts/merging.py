"""A strided block's mixer that mixes nothing beyond what becomes one position."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from qna._core.checks import positive
from qna.models._parts.padding import pad_same, same_margins
from qna.models._parts.shortcut import even_rows, strided_size
from qna.parts.initializers import init_linear_
from qna.parts.linear import apply_linear
from qna.parts.reach import Reach
from qna.parts.rows import PositionRows


class PatchMerging(nn.Module):
    """Every patch of ``stride x stride`` positions through one linear map (Swin's, Liu et al., ICCV 2021).

    Patches at the border are filled with zeros, as the stem fills them. It costs n C C' multiply-adds for n
    positions of C channels.

    Args:
        dim: channels of the input.
        stride: positions per axis of a patch.
        out_dim: channels of the output; None for ``2 * dim``.
    """

    def __init__(self, dim: int, *, stride: int, out_dim: int | None = None):
        super().__init__()
        self.dim = dim
        self.stride = stride
        self.out_dim = 2 * dim if out_dim is None else out_dim
        positive(type(self).__name__, dim=dim, stride=stride, out_dim=self.out_dim)
        self.proj = nn.Linear(stride * stride * dim, self.out_dim, bias=False)
        init_linear_(self.proj)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, ceil(H / stride), ceil(W / stride), out_dim)."""
        x = pad_same(x.permute(0, 3, 1, 2), self.stride, self.stride).permute(0, 2, 3, 1)
        rows = x.unflatten(2, (-1, self.stride)).unflatten(1, (-1, self.stride))
        return apply_linear(self.proj, rows.transpose(2, 3).flatten(3))

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size` = (B, H, W, dim), the zeros at its border included."""
        out = strided_size(size, self.stride, self.out_dim)
        return math.prod(out) * self.stride**2 * self.dim

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: the patches, the map filled up where it has to be, and the output."""
        out = strided_size(size, self.stride, self.out_dim)
        patches = math.prod(out[:-1]) * self.stride**2 * self.dim
        return patches * (1 if patches == math.prod(size) else 2) + math.prod(out)

    def attention_rows(self, x: Tensor) -> PositionRows:
        """Which positions each patch is made of, all alike."""
        return even_rows(x, self.stride, self.stride, self._before(x.shape))

    def reach(self, size: Sequence[int]) -> tuple[Reach, ...]:
        """The patches; where they begin depends on `size`."""
        return tuple(
            Reach.of_window(self.stride, stride=self.stride, before=before) for before in self._before(size)
        )

    def _before(self, size: Sequence[int]) -> list[int]:
        """Zeros before the map, per axis."""
        return [same_margins(n, self.stride, self.stride)[0] for n in size[1:3]]
