"""QnA, query and attend: overlapping windows attended with a few learned queries that all windows share."""

from __future__ import annotations

from collections.abc import Sequence

from qna._core.checks import per_axis
from qna.mixers.learned_query.layer import ABOUT
from qna.mixers.learned_query.windows import LearnedQueryWindows
from qna.mixers.row import Example, MixerRow, Traits


class QnA(LearnedQueryWindows):
    """Learned-query attention (Arar et al., CVPR 2022): what `QnA1d`, `QnA2d` and `QnA3d` have in common.

    Every window of the map is attended with the same `num_queries` learned queries per head; the queries'
    answers are weighted per tap and summed. With n positions, C channels, L queries, h heads and windows of K
    taps, the projections cost n C (2 C + L h) multiply-adds and the windows of the order of n K (C + L h);
    its memory does not depend on K.

    Args:
        dim: channels of the input.
        num_heads: heads at `dim` channels; head dim ``dim // num_heads`` stays, heads grow with `out_dim`.
        kernel_size: taps of the window; an integer or one per axis, even or odd, also larger than the map.
        num_queries: learned queries per head.
        stride: positions between windows; an integer or one per axis. n positions become ceil(n / stride).
        dilation: positions between taps; an integer or one per axis.
        out_dim: channels of the output; None for `dim`, or ``2 * dim`` where any stride is above 1 (the
            paper's down-sampling form).
        position: "relative" (learned, from zero), "contextual", "absolute" or "none"; see `position`.
        query_weight: "normal" (learned, from N(0, 0.02)), "elementwise", "posneg", "ones", "avg" or "none";
            see `query_weight`.
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
        kernel_size: int | Sequence[int],
        num_queries: int = 2,
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        out_dim: int | None = None,
        position: str = "relative",
        query_weight: str = "normal",
        bias: bool = False,
        normalize_query: bool = True,
        backend: str | None = None,
    ):
        kernel = per_axis("kernel_size", kernel_size, self.axes, minimum=1)
        strides = per_axis("stride", stride, self.axes, minimum=1)
        if out_dim is None:
            out_dim = dim if set(strides) == {1} else 2 * dim
        super().__init__(
            dim,
            kernel,
            num_heads=num_heads,
            num_queries=num_queries,
            out_dim=out_dim,
            position=position,
            query_weight=query_weight,
            bias=bias,
            normalize_query=normalize_query,
        )
        self.kernel_size = kernel
        self.stride = strides
        self.dilation = per_axis("dilation", dilation, self.axes, minimum=1)
        self.factor = (1,) * self.axes
        self.backend = backend

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        return (
            f"{self.dim}, out_dim={self.out_dim}, num_heads={self.num_heads}, "
            f"kernel_size={self.kernel_size}, num_queries={self.num_queries}, stride={self.stride}, "
            f"dilation={self.dilation}"
        )


class QnA1d(QnA):
    """QnA on sequences: (B, N, C) -> (B, N', C'). Arguments as for `QnA`."""

    axes = 1


class QnA2d(QnA):
    """QnA on images: (B, H, W, C) -> (B, H', W', C'). Arguments as for `QnA`."""

    axes = 2


class QnA3d(QnA):
    """QnA on volumes or clips: (B, D, H, W, C) -> (B, D', H', W', C'). Arguments as for `QnA`."""

    axes = 3


ROWS = tuple(
    MixerRow(build, ABOUT, Example(space, {"num_heads": 2, "kernel_size": kernel}), traits)
    for build, space, kernel, traits in (
        (QnA1d, (9,), 3, Traits(1, heads=True, strided=True)),
        (QnA2d, (5, 7), 3, Traits(2, heads=True, strided=True)),
        (QnA3d, (3, 4, 5), (1, 3, 3), Traits(3, heads=True, strided=True)),
    )
)
