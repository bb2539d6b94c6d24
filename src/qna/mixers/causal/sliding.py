"""Attention to a window of what came before, with sinks where they are asked for."""

from __future__ import annotations

from torch import Tensor

from qna._core.about import About
from qna.mixers.causal.softmax import SoftmaxAttention
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.causal_attend import attend_band
from qna.parts.kv_cache import CachePolicy, KeepWindow
from qna.parts.rotary import HALVES


class SlidingAttention1d(SoftmaxAttention):
    """Each position attends the `window` positions that end with it, and the first `sinks` of the sequence.

    The window is that of Mistral 7B (Jiang et al., arXiv 2310.06825), the sinks those of StreamingLLM (Xiao
    et al., arXiv 2309.17453), here in training as well. Of N positions with C channels, h heads of d and g of
    keys it costs ``2 N C d (h + g)`` multiply-adds and those of scores and values, at most
    ``2 N (window + sinks) h d``; the cache holds ``2 g d`` numbers for each of ``window - 1 + sinks``
    positions and no more. Keys have the angles of their positions in the sequence.

    Args:
        dim: channels of input and output.
        window: positions, a position itself among them.
        sinks: first positions that all later ones see.
        num_heads: this and the following are those of `SoftmaxAttention`.

    Raises:
        InvalidInput: a window below 1, sinks below 0, heads that do not divide.
    """

    def __init__(
        self,
        dim: int,
        *,
        window: int,
        sinks: int = 0,
        num_heads: int,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        bias: bool = False,
        rope_base: float | None = 10_000.0,
        rope_layout: str = HALVES,
        rope_scale: float = 1.0,
    ):
        super().__init__(
            dim,
            num_heads=num_heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            bias=bias,
            rope_base=rope_base,
            rope_layout=rope_layout,
            rope_scale=rope_scale,
        )
        self._policy = KeepWindow(window, sinks)

    @property
    def window(self) -> int:
        """Positions that each sees, itself among them."""
        return self._policy.window

    @property
    def sinks(self) -> int:
        """First positions that all later ones see."""
        return self._policy.sinks

    @property
    def policy(self) -> CachePolicy:
        """The window and the sinks."""
        return self._policy

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Over the window and the sinks."""
        return attend_band(query, key, value, window=self.window, sinks=self.sinks)

    def pairs(self, length: int) -> int:
        """A band below the diagonal, and the sinks' columns below it."""
        inside = min(length, self.window)
        later = length - inside
        # the i-th position behind the first window has min(i, sinks) sinks before its window
        met = min(later, self.sinks)
        outside = met * (met + 1) // 2 + (later - met) * self.sinks
        return inside * (inside + 1) // 2 + later * self.window + outside

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        return f"{super().extra_repr()}, window={self.window}, sinks={self.sinks}"


ROW = MixerRow(
    SlidingAttention1d,
    About(
        title="Efficient Streaming Language Models with Attention Sinks",
        authors="Xiao, Tian, Chen et al.",
        venue="ICLR 2024",
        arxiv="2309.17453",
        read="transformers 5.24's Mistral attention (Apache-2.0), for the window; of sinks what is said of "
        "them beside SinkLoRA",
        differs="keys keep the angles of their positions in the sequence, where the paper turns them by "
        "places in the cache; sinks are seen in training too",
        status="after",
    ),
    Example(
        (9,), {"num_heads": 4, "kv_heads": 2, "window": 3, "sinks": 1}, long={"window": 1024, "sinks": 4}
    ),
    Traits(1, heads=True, causal=True),
)
