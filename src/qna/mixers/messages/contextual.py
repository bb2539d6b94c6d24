"""Messages between the positions of a window, each of which knows both ends and the whole window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from qna._core import checks
from qna._core.about import About
from qna._core.errors import InvalidInput
from qna.mixers.messages.windows import MapWindows
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.contextual_messages import ContextualMessages
from qna.parts.reach import Reach


class WindowMessages(nn.Module):
    """What `WindowMessages1d`, `2d` and `3d` have in common: SINC-GCN (Lim et al., arXiv 2511.11046) on maps.

    A map is a graph whose nodes are the positions, each with the positions of the window around it as its
    neighbours N(u), as far as they lie in the map::

        y_u = AGG_(v in N(u)) W_R act(W_Q h_u + W_K h_v + W_N AGG'_(w in N(u)) h_w)

    `qna.parts.contextual_messages.ContextualMessages` has the formula; its weights fit those of
    `qna.graph.SINCConv` and the other way round. There is no softmax and no weight by offset: positions of a
    window are a set. With n positions, C channels and windows of K taps it costs ``n (3 C C_h + C_h C)``
    multiply-adds, and n K C_h additions and activations. Where AGG is "max" W_R stands inside, and it costs
    ``n (3 C C_h + K C_h C)``.

    The published layer is one of graphs; that windows are its neighbourhoods, that a position is its own
    neighbour, and means for the published default of sums, which grow with the window, are choices of ours.

    Args:
        dim: channels of input and output.
        kernel_size: of the window, odd; one per axis where they differ.
        hidden: channels C_h of messages inside; None for `dim`.
        aggregator: AGG: "sum", "mean", "sym" or "max".
        context: AGG', of the same; None for none and no W_N: SIR-GCN.
        self_loops: whether a position is its own neighbour.
        activation: act, a module that maps the last axis of any tensor; None for ReLU.
        project_first: whether W_N comes before AGG', as in the equation; for "max" that is not the same.
        drop: dropout of each of the three terms inside, in training.
        inner_bias: whether W_Q has one.
        outer_bias: whether W_R has one.

    Raises:
        InvalidInput: sizes that are not positive, or a window that is even and has no middle.
        UnknownName: an aggregator that there is not.
    """

    axes: ClassVar[int]

    def __init__(
        self,
        dim: int,
        *,
        kernel_size: int | Sequence[int] = 3,
        hidden: int | None = None,
        aggregator: str = "mean",
        context: str | None = "mean",
        self_loops: bool = True,
        activation: nn.Module | None = None,
        project_first: bool = False,
        drop: float = 0.0,
        inner_bias: bool = True,
        outer_bias: bool = True,
    ):
        super().__init__()
        name = type(self).__name__
        checks.positive(name, dim=dim)
        self.dim = self.out_dim = dim
        self.kernel_size = checks.per_axis(f"{name}: kernel_size", kernel_size, self.axes, minimum=1)
        if any(k % 2 == 0 for k in self.kernel_size):
            raise InvalidInput(f"{name}: kernel_size must be odd, got {self.kernel_size}")
        self.self_loops = self_loops
        self.formula = ContextualMessages(
            dim,
            dim if hidden is None else hidden,
            dim,
            aggregator=aggregator,
            context=context,
            activation=activation,
            project_first=project_first,
            drop=drop,
            inner_bias=inner_bias,
            outer_bias=outer_bias,
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, *space, dim) -> the same."""
        checks.channels_last_map(type(self).__name__, x, self.dim, self.axes)
        return self.formula(self._windows(x.shape), x)

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size` = (B, *space, dim): linear maps alone."""
        windows = self._windows(size)
        return size[0] * self.formula.macs(math.prod(windows.space), windows.pairs())

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: queries with and without what surrounds them, that, and keys.

        Where it is more, queries, keys and the sums of features; or with maxima messages of one tap and the
        largest so far.
        """
        hidden = self.formula.query.out_features
        most = max(4 * hidden, 2 * (hidden + self.dim))
        if self.formula.aggregator == "max":
            most = max(most, 3 * hidden + 2 * self.dim)
        return math.prod(size[:-1]) * most

    def reach(self, size: Sequence[int]) -> tuple[Reach, ...]:
        """The windows."""
        return tuple(Reach.of_window(k, before=k // 2) for k in self.kernel_size)

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        return f"{self.dim}, kernel_size={self.kernel_size}, self_loops={self.self_loops}"

    def _windows(self, size: Sequence[int]) -> MapWindows:
        return MapWindows(size[1:-1], self.kernel_size, self.self_loops)


class WindowMessages1d(WindowMessages):
    """Messages in windows of sequences: (B, N, C) -> the same. Arguments of `WindowMessages`."""

    axes = 1


class WindowMessages2d(WindowMessages):
    """Messages in windows of images: (B, H, W, C) -> the same. Arguments of `WindowMessages`."""

    axes = 2


class WindowMessages3d(WindowMessages):
    """Messages in windows of volumes or clips: (B, D, H, W, C) -> the same. Arguments of `WindowMessages`."""

    axes = 3


ABOUT = About(
    title="Enhancing Graph Representations with Neighborhood-Contextualized Message-Passing",
    authors="Lim, Lim, Tan et al.",
    venue="arXiv 2025",
    arxiv="2511.11046",
    read="the authors' code, briangodwinlim/SINC-GCN at c12984e and SIR-GCN at 71ff359 (CC-BY-4.0)",
    differs="neighbours are the positions of a window, a position among them, and means are the default",
    status="exact",
)

A_SET = {"the_order_of_positions_counts": "the positions of a window are a set"}
ROWS = tuple(
    MixerRow(build, ABOUT, Example(space, arguments), Traits(build.axes), exempt)
    for build, space, arguments, exempt in (
        (
            WindowMessages1d,
            (9,),
            {"kernel_size": 5, "aggregator": "sym", "context": "max", "self_loops": False},
            A_SET,
        ),
        # plain: what benchmarks enlarge
        (WindowMessages2d, (5, 7), {"kernel_size": 3}, A_SET),
        (
            WindowMessages3d,
            (3, 4, 5),
            {"kernel_size": (1, 3, 3), "aggregator": "max", "context": "sum"},
            {},
        ),
    )
)
