"""Up-sampling by attention: a learned query for each sub-pixel, over a window of the coarse map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch

from qna._core.checks import per_axis
from qna.mixers.learned_query.layer import ABOUT
from qna.mixers.learned_query.windows import LearnedQueryWindows
from qna.mixers.row import Example, MixerRow, Traits

if TYPE_CHECKING:
    from qna.mixers.learned_query.position import RelativePosition

# of the weights of linear interpolation around the place that is asked for: a triangle of base 2
_VARIANCE = 1 / 6


class QnAUpsample(LearnedQueryWindows):
    """Up-sampling with learned queries: what `QnAUpsample1d`, `2d` and `3d` have in common.

    A position `i` of the map becomes a block of `factor` outputs per axis. Each of these sub-pixels `r` has a
    learned query and a position bias of its own, which all blocks share, and attends the window around `i`::

        out[i * factor + r, h] = sum_t softmax_t( scores[j(i,t), r, h] + bias[t, r, h] ) value[j(i,t), h]

    Taps outside the map count for nothing and the others sum to 1. So biases alone, the logarithms of the
    weights of an interpolation with neighbours at most ``kernel_size // 2`` away, make it nearest or bilinear
    up-sampling, borders included; scores let what is there move these weights.

    Relative biases begin at ``-3 |distance|^2``, in positions from tap to sub-pixel: a Gaussian with the
    variance of linear interpolation's weights, 1/6 along each axis. From zero all sub-pixels of a block would
    begin as the same mean of the window, and would have to learn first where they are.

    With n positions, R = prod(factor), C channels, h heads and windows of K taps, the projections cost
    n C (C + R h) + R n C^2 multiply-adds and the windows of the order of R n K (C + h). Beside the output,
    n R C numbers, it holds values and scores, n (C + R h), whatever the window.

    Args:
        dim: channels of the input.
        num_heads: heads at `dim` channels; head dim ``dim // num_heads`` stays, heads grow with `out_dim`.
        factor: outputs per position along each axis; an integer or one per axis.
        kernel_size: taps of the window on the coarse map; an integer or one per axis, even or odd.
        out_dim: channels of the output; None for `dim`.
        position: "relative" (learned), "contextual", "absolute" or "none"; see `position`.
        bias: whether values and output have a bias; a key bias would cancel in the softmax.
        normalize_query: bring each head's query to unit length before the division by sqrt(head dim).
        backend: backend of the op; None takes the fastest that can run.

    Raises:
        InvalidInput: `num_heads` does not divide `dim`, `out_dim` is no multiple of the head dim, a size is
            not positive, or a mode is unknown.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        factor: int | Sequence[int] = 2,
        kernel_size: int | Sequence[int] = 3,
        out_dim: int | None = None,
        position: str = "relative",
        bias: bool = False,
        normalize_query: bool = True,
        backend: str | None = None,
    ):
        factors = per_axis("factor", factor, self.axes, minimum=1)
        kernel = per_axis("kernel_size", kernel_size, self.axes, minimum=1)
        super().__init__(
            dim,
            kernel,
            num_heads=num_heads,
            num_queries=math.prod(factors),
            out_dim=dim if out_dim is None else out_dim,
            position=position,
            # one query makes an output: there are no answers to merge
            query_weight="none",
            bias=bias,
            normalize_query=normalize_query,
        )
        self.factor = factors
        self.kernel_size = kernel
        self.stride = self.dilation = (1,) * self.axes
        self.backend = backend
        if position == "relative":
            self._begin_as_interpolation()

    @torch.no_grad()
    def _begin_as_interpolation(self) -> None:
        """Set the biases to those of a Gaussian around each sub-pixel."""
        table = cast("RelativePosition", self.project.position).table
        squares = []  # (taps, sub-pixels) of each axis, broadcast over the others
        for axis, (k, f) in enumerate(zip(self.kernel_size, self.factor, strict=True)):
            taps = torch.arange(k, dtype=table.dtype, device=table.device) - (k - 1) // 2
            places = (torch.arange(f, dtype=table.dtype, device=table.device) + 0.5) / f - 0.5
            shape = [1] * (2 * self.axes)
            shape[axis], shape[self.axes + axis] = k, f
            squares.append((taps[:, None] - places).square().view(shape))
        biases = torch.stack(torch.broadcast_tensors(*squares)).sum(0).flatten(self.axes) / (-2 * _VARIANCE)
        table.copy_(biases.unsqueeze(-1).expand_as(table))

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        return (
            f"{self.dim}, out_dim={self.out_dim}, num_heads={self.num_heads}, factor={self.factor}, "
            f"kernel_size={self.kernel_size}"
        )


class QnAUpsample1d(QnAUpsample):
    """Up-sampling of sequences, (B, N, C) -> (B, 2 N, C') by 2. Arguments as for `QnAUpsample`."""

    axes = 1


class QnAUpsample2d(QnAUpsample):
    """Up-sampling of images, (B, H, W, C) -> (B, 2 H, 2 W, C') by 2. Arguments as for `QnAUpsample`."""

    axes = 2


class QnAUpsample3d(QnAUpsample):
    """Up-sampling of volumes, (B, D, H, W, C) -> (B, 2 D, 2 H, 2 W, C') by 2. As for `QnAUpsample`."""

    axes = 3


_ABOUT = replace(
    ABOUT,
    read="not the paper's section on it; a layer on one axis by the same first author (SinMDM/SinMDM at "
    "5feb29d, MIT), and what pull request 125 of lucidrains/lightweight-gan says of the paper's",
    differs="two and three axes and any factor are ours; outputs are interleaved, where that layer's are "
    "grouped by query; a maximum is subtracted before exponentials; queries are brought to unit length "
    "as in the paper's other layers",
    status="after",
)

ROWS = tuple(
    MixerRow(
        build,
        _ABOUT,
        Example(space, {"num_heads": 2, "factor": factor}, out_space=fine),
        Traits(axes, heads=True, upsamples=True),
    )
    for axes, build, space, factor, fine in (
        (1, QnAUpsample1d, (5,), 3, (15,)),
        (2, QnAUpsample2d, (3, 5), 2, (6, 10)),
        (3, QnAUpsample3d, (2, 3, 2), (1, 2, 2), (2, 6, 4)),
    )
)
