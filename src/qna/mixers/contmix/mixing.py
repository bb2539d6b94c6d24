"""ContMix: depthwise kernels, a small and a large one, that every position takes from a context."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core import checks
from qna._core.about import About
from qna._core.errors import InvalidInput
from qna.mixers.contmix.dilated_reparam import DilatedReparam2d
from qna.mixers.contmix.kernels import offset_bias, space_of_kernel
from qna.mixers.row import Example, MixerRow, Traits
from qna.ops import neighborhood_av
from qna.parts.image_view import on_image
from qna.parts.linear import apply_linear
from qna.parts.normed_linear import NormedLinear
from qna.parts.open_size import is_open
from qna.parts.precision import as_they_are, without_autocast
from qna.parts.resize import linear_matrix, mean_matrix, resample
from qna.parts.squeeze_excite import SqueezeExcite

# per axis, of the means that stand for the context
POOLED = 7


class ContMix2d(nn.Module):
    """Context-mixing dynamic convolution (Lou and Yu, CVPR 2025, section 3.2) with what stands around it.

    In each of G = 2 `num_heads` groups, with queries q of the map, keys k of the context's means over 7 x 7
    regions (both linear and normalised), a linear map M from regions to taps, the taps of a small kernel of
    S x S and of a large one of K x K, and a table b of biases by offset::

        A(i, r)   = q_i . k_r (C / G)^(-1/2)
        W_i       = softmax over each kernel's taps of  M A(i) + bias + b
        mixed_i   = sum over taps t of W_i(t) v(i + t)
        y         = out(BN(silu(gate(x)) SE(BN(P mixed) + BN(DR(x)))))

    The small kernel mixes the first half of the channels and the large one the second. Windows move inwards
    at borders, as in neighbourhood attention. DR is `DilatedReparam2d` of K, SE squeeze and
    excitation. Values v are a linear map of x, or x itself.

    A map that is smaller than K along an axis is enlarged to it, its aspect kept, before it is mixed, and the
    result averaged back. Kernels are made in single precision at least, whatever autocast says.

    With n positions, C channels, T = S^2 + K^2 taps and a context of m positions and D channels it costs
    ``n C (2 C + C / 2 + C' + T / 2) + 49 n (C / 2 + G T)`` multiply-adds, what DR and SE cost,
    ``49 C D / 2`` for the keys and ``n C^2`` for projected values. The order of the products is another here,
    (M k) q, which never forms A.

    Args:
        dim: channels C of input.
        num_heads: half the number of groups; 4 `num_heads` divides `dim`.
        kernel_size: K, of which `DilatedReparam2d` has a form.
        small_kernel_size: S, at most K; None for 5, the published one, or K where that is smaller.
        context_dim: channels D of the context; None for `dim`.
        out_dim: channels C' of the output; None for `dim`.
        value: whether values are a linear map of x.
        deploy: whether DR begins in its deployed form.

    Raises:
        InvalidInput: numbers that do not fit.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        kernel_size: int = 7,
        small_kernel_size: int | None = None,
        context_dim: int | None = None,
        out_dim: int | None = None,
        value: bool = True,
        deploy: bool = False,
    ):
        super().__init__()
        name = type(self).__name__
        checks.head_dim(name, dim, num_heads)
        if dim % (4 * num_heads):
            raise InvalidInput(
                f"{name}: 4 num_heads must divide dim, since each head is two groups in each half of the "
                f"channels, got num_heads={num_heads} and dim={dim}"
            )
        self.dim, self.out_dim = dim, dim if out_dim is None else out_dim
        self.context_dim = dim if context_dim is None else context_dim
        checks.positive(name, out_dim=self.out_dim, context_dim=self.context_dim)
        self.num_heads, self.groups = num_heads, 2 * num_heads
        # the trap: by the channels of a group of the whole map, though queries have half as many
        self.scale = (dim // self.groups) ** -0.5
        self.local = DilatedReparam2d(dim, kernel_size=kernel_size, deploy=deploy)
        if small_kernel_size is None:
            small_kernel_size = min(5, kernel_size)
        if not isinstance(small_kernel_size, int) or not 1 <= small_kernel_size <= kernel_size:
            raise InvalidInput(
                f"{name}: small_kernel_size must be from 1 to kernel_size={kernel_size}, got "
                f"{small_kernel_size!r}"
            )
        self.kernel_size, self.small_kernel_size = kernel_size, small_kernel_size
        self.query = NormedLinear(dim, dim // 2)
        self.key = NormedLinear(self.context_dim, dim // 2)
        # shared by all groups; first the taps of the small kernel
        self.taps = nn.Linear(POOLED**2, sum(self._counts), bias=False)
        self.tap_bias = nn.Parameter(torch.zeros(sum(self._counts)))
        self.small_rpb, self.large_rpb = (
            nn.Parameter(torch.empty(self.groups, 2 * k - 1, 2 * k - 1))
            for k in (small_kernel_size, kernel_size)
        )
        self.value = NormedLinear(dim, dim) if value else nn.Identity()
        self.mixed = NormedLinear(dim, dim)
        self.local_norm = nn.BatchNorm2d(dim)
        self.excite = SqueezeExcite(dim)
        self.gate = NormedLinear(dim, dim)
        self.out_norm = nn.BatchNorm2d(dim)
        self.out = nn.Linear(dim, self.out_dim)
        for table in (self.small_rpb, self.large_rpb):
            nn.init.normal_(table, std=0.02)

    @property
    def _counts(self) -> tuple[int, int]:
        """Taps of both kernels."""
        return self.small_kernel_size**2, self.kernel_size**2

    def forward(self, x: Tensor, query: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        """Mix x (B, H, W, dim) into (B, H, W, out_dim).

        Args:
            x: what is mixed.
            query: (B, H, W, dim), of which the queries are made; None for x.
            context: (B, H', W', context_dim), of which the kernels are made; None for x.
        """
        query, context = self._given(x, query, context)
        with as_they_are(x.device):
            gate = F.silu(self.gate(x))
            local = on_image(self.local_norm, self.local(x))
            mixed = self.mixed(self._mix(x, query, context))
            return apply_linear(self.out, on_image(self.out_norm, gate * self.excite(mixed + local)))

    def dynamic_kernels(
        self, x: Tensor, query: Tensor | None = None, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Kernels of every position, small and large: (B, H, W, groups, S, S) and (B, H, W, groups, K, K).

        At least fp32. Of a map that is smaller than K, those of the enlarged one.
        """
        query, context = self._given(x, query, context)
        small, large = self._kernels(self._enlarged(query), self._enlarged(context))
        return small.unflatten(-1, (self.small_kernel_size, -1)), large.unflatten(-1, (self.kernel_size, -1))

    def fuse(self) -> ContMix2d:
        """Deploy the static kernel, in place: `DilatedReparam2d.fuse`."""
        self.local.fuse()
        return self

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size` = (B, H, W, dim), in the paper's order of products.

        With a context of any size; of the enlarged map where it is smaller than a kernel.
        """
        batch, *space, dim = size
        height, width = space_of_kernel(space, self.kernel_size)
        n, enlarged = math.prod(size[:-1]), batch * height * width
        taps = sum(self._counts)
        linear = n * dim * (dim + self.out_dim) + enlarged * dim * dim // 2
        linear += n * dim * dim + (0 if isinstance(self.value, nn.Identity) else enlarged * dim * dim)
        keys = batch * POOLED**2 * self.context_dim * dim // 2
        kernels = enlarged * POOLED**2 * (dim // 2 + self.groups * taps)
        aggregated = enlarged * dim // 2 * taps
        return linear + keys + kernels + aggregated + self.local.macs(size) + self.excite.macs(tuple(size))

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input at the worst moment: the kernels, and gate, static kernel, values, mixed.

        Logits and their softmax live together.
        """
        batch, *space, dim = size
        height, width = space_of_kernel(space, self.kernel_size)
        enlarged = batch * height * width
        return 2 * math.prod(size) + enlarged * (2 * dim + 2 * self.groups * sum(self._counts))

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        return (
            f"{self.dim}, num_heads={self.num_heads}, kernel_size={self.kernel_size}, "
            f"small_kernel_size={self.small_kernel_size}"
        )

    def _given(self, x: Tensor, query: Tensor | None, context: Tensor | None) -> tuple[Tensor, Tensor]:
        name = type(self).__name__
        checks.channels_last_map(name, x, self.dim, 2)
        query = x if query is None else query
        if query.shape != x.shape:
            raise InvalidInput(
                f"{name}: query must have the shape of x, got {tuple(query.shape)} beside {tuple(x.shape)}"
            )
        context = x if context is None else context
        if context.ndim != 4 or context.shape[0] != x.shape[0] or context.shape[-1] != self.context_dim:
            raise InvalidInput(
                f"{name}: context must be (B, H, W, C) with B = {x.shape[0]} and C = {self.context_dim}, got "
                f"{tuple(context.shape)}"
            )
        return query, context

    def _mix(self, x: Tensor, query: Tensor, context: Tensor) -> Tensor:
        """Values summed with the kernels of both sizes, (B, H, W, dim)."""
        value = self.value(self._enlarged(x))
        kernels = self._kernels(self._enlarged(query), self._enlarged(context))
        halves = zip(value.chunk(2, -1), kernels, (self.small_kernel_size, self.kernel_size), strict=True)
        mixed = torch.cat(
            [
                neighborhood_av(
                    kernel.to(half.dtype), half.unflatten(-1, (self.groups, -1)), kernel_size=size
                ).flatten(-2)
                for half, kernel, size in halves
            ],
            -1,
        )
        if mixed.shape[1:3] == x.shape[1:3] and not any(map(is_open, x.shape[1:3])):
            return mixed
        rows, columns = (mean_matrix(x.shape[i], mixed.shape[i], mixed) for i in (1, 2))
        return resample(mixed, rows, columns)

    def _kernels(self, query: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Softmax over the taps of each kernel: (B, H, W, groups, taps), at least fp32."""
        height, width = query.shape[1:3]
        pooling = (mean_matrix(POOLED, n, context) for n in context.shape[1:3])
        keys = self.key(resample(context, *pooling)).flatten(1, 2).unflatten(-1, (self.groups, -1))
        # of each region how much every tap takes, gathered before queries are met: never n x 49 numbers
        by_tap = apply_linear(self.taps, keys.permute(0, 2, 3, 1)).transpose(-1, -2)
        queries = self.query(query).flatten(1, 2).unflatten(-1, (self.groups, -1)).permute(0, 2, 3, 1)
        # half precision overflows in products of queries and keys
        with without_autocast(query.device):
            dtype = torch.promote_types(query.dtype, torch.float32)
            logits = (by_tap.to(dtype) * self.scale) @ queries.to(dtype)
            logits = logits + self.tap_bias[:, None].to(dtype)
            small, large = (
                (part + offset_bias(table, k, (height, width)).to(dtype)).softmax(-2)
                for part, table, k in zip(
                    logits.split(self._counts, -2),
                    (self.small_rpb, self.large_rpb),
                    (self.small_kernel_size, self.kernel_size),
                    strict=True,
                )
            )
        return tuple(k.unflatten(-1, (height, width)).permute(0, 3, 4, 1, 2) for k in (small, large))  # type: ignore[return-value]

    def _enlarged(self, x: Tensor) -> Tensor:
        """A map in which the large kernel fits, its aspect kept."""
        space = x.shape[1:3]
        if not any(map(is_open, space)) and min(space) >= self.kernel_size:
            return x
        sizes = zip(space_of_kernel(space, self.kernel_size), space, strict=True)
        return resample(x, *(linear_matrix(new, old, x) for new, old in sizes))


ROW = MixerRow(
    ContMix2d,
    About(
        title="OverLoCK: An Overview-first-Look-Closely-next ConvNet with Context-Mixing Dynamic Kernels",
        authors="Lou, Yu",
        venue="CVPR 2025",
        arxiv="2502.20087",
        read="the authors' code, LMMMEng/OverLoCK at 2c8ab3b (Apache-2.0)",
        differs="regions are mapped to taps before queries meet them, which never forms the map of "
        "affinities; kernels are made in single precision also under autocast; a map smaller than a kernel "
        "is enlarged to whole numbers that are computed exactly, where rounding makes theirs one position "
        "smaller at a few sizes, 5 x 45 under 7 x 7 the first",
        status="exact",
    ),
    Example((6, 7), {"num_heads": 2, "kernel_size": 5, "small_kernel_size": 3}),
    Traits(2, heads=True),
)
