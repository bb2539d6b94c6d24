"""Linear attention that looks back: a sum stands for all that came before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core import checks
from qna._core.about import About
from qna.mixers.causal.mixer import CausalMixer
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.grouped_heads import GroupedHeads
from qna.parts.initializers import init_linear_
from qna.parts.linear import apply_linear
from qna.parts.open_size import is_open
from qna.parts.precision import without_autocast
from qna.parts.sequence_state import SequenceState


class CausalLinearAttention1d(CausalMixer):
    """Linear attention with a constant state (Katharopoulos et al., arXiv 2006.16236)::

        S_i = S_(i-1) + phi(k_i) v_i^T,   z_i = z_(i-1) + phi(k_i),   phi(t) = elu(t) + 1
        y_i = phi(q_i)^T S_i / (phi(q_i) . z_i)

    Chunks of positions are taken at once: inside a chunk pairs are formed, and chunks before it are met in
    their sums. With C channels, d of a head and chunks of c it costs ``N C (4 C + 2 d + 2 c + 1)``
    multiply-adds; the state is ``C (d + 1)`` numbers, in single precision at least, as are all sums. It knows
    no positions but by order.

    Args:
        dim: channels of input and output.
        num_heads: heads; divides `dim`.
        chunk: positions whose pairs are formed; of the result it changes the rounding alone.
        bias: whether the four linear maps have one.

    Raises:
        InvalidInput: `num_heads` does not divide `dim`, or `chunk` is not positive.
    """

    def __init__(self, dim: int, *, num_heads: int, chunk: int = 64, bias: bool = False):
        super().__init__()
        checks.positive(type(self).__name__, chunk=chunk)
        self.dim = self.out_dim = dim
        self.chunk = chunk
        self.heads = GroupedHeads(type(self).__name__, dim, num_heads=num_heads, bias=bias)
        self.out = nn.Linear(dim, dim, bias=bias)
        init_linear_(self.out)

    def begin(self, batch: int, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
        """Sums of nothing."""
        heads, d = self.heads.num_heads, self.heads.head_dim
        exact = torch.promote_types(dtype, torch.float32)
        return {
            "sums": torch.zeros(batch, heads, d, d, device=device, dtype=exact),
            "keys": torch.zeros(batch, heads, d, device=device, dtype=exact),
        }

    def advance(self, x: Tensor, state: SequenceState) -> tuple[Tensor, SequenceState]:
        """All chunks at once."""
        length = x.shape[1]
        query, key, value = self.heads(x)
        dtype, exact = value.dtype, torch.promote_types(value.dtype, torch.float32)
        chunk = self.chunk if is_open(length) else min(self.chunk, length)
        more = -length % chunk
        with without_autocast(x.device):
            query, key = (_positive(t.to(exact)) for t in (query, key))
            # keys that only fill up add nothing
            query, key, value = (
                torch.cat(
                    [t.to(exact), t.new_zeros(*t.shape[:2], more, t.shape[3], dtype=exact)], 2
                ).unflatten(2, (-1, chunk))
                for t in (query, key, value)
            )
            within = (query @ key.transpose(-1, -2)).tril()
            # sums of all up to the end of each chunk, and of what was before all of them
            sums = _running(state["sums"], key.transpose(-1, -2) @ value)
            keys = _running(state["keys"], key.sum(-2))
            attended = within @ value + query @ sums[:, :, :-1]
            met = within.sum(-1, keepdim=True) + query @ keys[:, :, :-1, :, None]
            # what fills up met nothing, and would be 0 / 0
            attended, met = (t.flatten(2, 3)[:, :, :length] for t in (attended, met))
            attended = (attended / met).transpose(1, 2)
        out = apply_linear(self.out, attended.to(dtype).reshape(x.shape))
        return out, state.after(length, sums=sums[:, :, -1], keys=keys[:, :, -1])

    def state_bytes(self, size: Sequence[int], dtype: torch.dtype = torch.float32) -> int:
        """Bytes of the sums of sequences of `size` = (B, N, dim), however long."""
        numbers = size[0] * self.dim * (self.heads.head_dim + 1)
        return numbers * torch.promote_types(dtype, torch.float32).itemsize

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for sequences of `size` = (B, N, dim): linear maps, pairs inside chunks, sums."""
        chunk, d = min(self.chunk, size[1]), self.heads.head_dim
        filled = size[0] * size[1] + size[0] * (-size[1] % chunk)
        return math.prod(size) * 4 * self.dim + filled * self.dim * (2 * chunk + 2 * d + 1)

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: queries, keys and values, what they become, pairs, and the sums."""
        chunk, d = min(self.chunk, size[1]), self.heads.head_dim
        chunks = -(-size[1] // chunk)
        within = chunks * chunk * chunk * self.heads.num_heads
        return 5 * math.prod(size) + size[0] * (within + 2 * (chunks + 1) * self.dim * (d + 1))

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        biased = self.out.bias is not None
        return f"{self.dim}, num_heads={self.heads.num_heads}, chunk={self.chunk}, bias={biased}"


def _positive(t: Tensor) -> Tensor:
    """``elu(t) + 1``; of torch's own the compiler (torch 2.13) gets strides of the gradient wrong."""
    return F.relu(t) + t.clamp(max=0).exp()


def _running(first: Tensor, added: Tensor) -> Tensor:
    """(B, h, ...) and what each of n chunks adds, (B, h, n, ...) -> sums before each and after all, n + 1."""
    return torch.cat([first.to(added.dtype).unsqueeze(2), added], 2).cumsum(2)


ROW = MixerRow(
    CausalLinearAttention1d,
    About(
        title="Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention",
        authors="Katharopoulos, Vyas, Pappas et al.",
        venue="ICML 2020",
        arxiv="2006.16236",
        read="descriptions of its recurrence; not the paper itself",
        differs="chunks of positions are taken at once; sums are in single precision at least",
        status="formula",
    ),
    Example((9,), {"num_heads": 2, "chunk": 4}, long={"chunk": 64}),
    Traits(1, heads=True, causal=True),
)
