"""Attention to all that came before, whose prompts are read by the blocks that proxy heads choose."""

from __future__ import annotations

from qna._core.about import About
from qna.mixers.causal.full import CausalAttention1d
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.kv_cache import CachePolicy
from qna.parts.proxy_prefill import ProxyPrefill
from qna.parts.rotary import HALVES


class ProxyAttention1d(CausalAttention1d):
    """`CausalAttention1d` that reads a prompt as ProxyAttn does (Wang et al., ICLR 2026, arXiv 2509.24745).

    There is nothing to train and no weight that is its own: `forward`, and so training, is dense, and a
    state dict is that of `CausalAttention1d`. A `step` from an empty state is a prompt: its blocks of queries
    attend the blocks of keys that `ProxyBlocks` chooses, by `qna.ops.block_sparse_attention`, which skips the
    others. Every later step attends all that came before. `CausalAttention1d.policy_state` with
    `ProxyPrefill` does the same in a network that stands already.

    Of a prompt of N positions with C channels, h heads of d and g of keys it costs ``2 N C d (h + g)``
    multiply-adds, those of `ProxyBlocks`, and ``2 d`` for each pair of a query and a key in a block that is
    kept, of ``h N^2 / 2``. The state is that of full attention.

    Args:
        dim: channels of input and output.
        num_heads: this and the following are those of `SoftmaxAttention`.
        block: this and the following are those of `ProxyBlocks`.

    Raises:
        InvalidInput: heads do not divide, or what `ProxyBlocks` refuses.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        bias: bool = False,
        rope_base: float | None = 10_000.0,
        rope_scale: float = 1.0,
        block: int = 128,
        proxies: int = 1,
        gamma: float = 0.95,
        least: int = 2048,
    ):
        super().__init__(
            dim,
            num_heads=num_heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            bias=bias,
            rope_base=rope_base,
            rope_layout=HALVES,
            rope_scale=rope_scale,
        )
        self._policy = ProxyPrefill(block=block, proxies=proxies, gamma=gamma, least=least)
        self._policy.check_heads(self.heads.num_heads, self.heads.kv_heads)

    @property
    def policy(self) -> CachePolicy:
        """Everything is kept, and a prompt is read by blocks."""
        return self._policy

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        told = self._policy
        return (
            f"{super().extra_repr()}, block={told.block}, proxies={told.proxies}, gamma={told.gamma:g}, "
            f"least={told.least}"
        )


ROW = MixerRow(
    ProxyAttention1d,
    About(
        title="ProxyAttn: Guided Sparse Attention via Representative Heads",
        authors="Wang et al.",
        venue="ICLR 2026",
        arxiv="2509.24745",
        read="the abstract, reviews and two notes of others that agree in the formulas; the authors' code "
        "(wyxstriker/ProxyAttn) cannot be read",
        differs="the size of a block (128), how a budget is counted where blocks are few or short, and that "
        "it looks at every key, are ours: see `ProxyBlocks`",
        status="after",
    ),
    Example(
        (9,),
        # a prompt of more than 20 positions is read sparsely
        {"num_heads": 4, "kv_heads": 2, "block": 4, "gamma": 0.4, "least": 20},
        long={"block": 128, "gamma": 0.95, "least": 2048},
    ),
    Traits(1, heads=True, causal=True),
    exempt={
        "any_split_is_the_whole": "a prompt in one step is read by chosen blocks, as published; in several "
        "steps, and by forward, everything is attended"
    },
)
