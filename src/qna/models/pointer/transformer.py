"""A pointer network of attention: the head and the training of the LSTM form around Transformer layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from qna._core import checks
from qna.models.pointer.pointing import PointsAtInputs
from qna.parts.attend import attend
from qna.parts.causal_attend import attend_before
from qna.parts.initializers import init_linear_
from qna.parts.linear import apply_linear
from qna.parts.mlp import ChannelMlp
from qna.parts.pointer_head import PointerHead
from qna.parts.rotary import Rotary
from qna.parts.sequence_state import SequenceState

# keys and values, (B, heads, N, d) each
Memory = tuple[Tensor, Tensor]


class PointerAttention(nn.Module):
    """Multi-head attention whose keys and values are made apart from its queries, so that they can be kept.

    Args:
        dim: channels.
        num_heads: of attention.
        rotary: whether queries and keys are turned by their positions.
    """

    def __init__(self, dim: int, num_heads: int, *, rotary: bool):
        super().__init__()
        self.head_dim = checks.head_dim("TransformerPointer", dim, num_heads)
        self.rotary = Rotary(self.head_dim) if rotary else None
        self.query, self.key, self.value, self.proj = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        for layer in (self.query, self.key, self.value, self.proj):
            init_linear_(layer)

    def memory(self, x: Tensor, start: int = 0) -> Memory:
        """Keys and values of (B, N, dim), at positions from `start` on."""
        return self._turned(self._heads(self.key, x), start), self._heads(self.value, x)

    def forward(
        self, x: Tensor, memory: Memory, added: Tensor | None = None, *, start: int = 0, causal: bool = False
    ) -> Tensor:
        """Attend from (B, M, dim), at positions from `start` on.

        Args:
            x: (B, M, dim).
            memory: what is attended.
            added: to the scores, broadcasting with (B, heads, M, N).
            start: position of the first query.
            causal: whether the queries are those of the last keys and see none behind their own.

        Returns:
            (B, M, dim).
        """
        query = self._turned(self._heads(self.query, x), start)
        attended = attend_before(query, *memory) if causal else attend(query, *memory, added)
        return apply_linear(self.proj, attended.transpose(1, 2).flatten(2))

    def _heads(self, layer: nn.Module, x: Tensor) -> Tensor:
        return apply_linear(layer, x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def _turned(self, heads: Tensor, start: int) -> Tensor:
        if self.rotary is None:
            return heads
        return self.rotary.rotate(heads, self.rotary.turns_from(start, heads.shape[2], heads))


class PointerEncoderLayer(nn.Module):
    """``x = x + attention(norm1(x))``, then ``x = x + mlp(norm2(x))``, of all inputs at once.

    Args:
        dim: channels.
        num_heads: of attention.
        hidden: channels of the MLP.
        rotary: whether the order of the inputs is told.
    """

    def __init__(self, dim: int, num_heads: int, hidden: int, *, rotary: bool):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = PointerAttention(dim, num_heads, rotary=rotary)
        self.mlp = ChannelMlp(dim, hidden)

    def forward(self, x: Tensor, hidden_from: Tensor | None) -> Tensor:
        """(B, N, dim), with -inf to add to the scores of what lies behind a sample's last input."""
        seen = self.norm1(x)
        x = x + self.attention(seen, self.attention.memory(seen), hidden_from)
        return x + self.mlp(self.norm2(x))


class PointerDecoderLayer(nn.Module):
    """The same of the answer so far, each step over those up to itself, and then over the encoded inputs.

    Args:
        dim: channels.
        num_heads: of attention.
        hidden: channels of the MLP.
    """

    def __init__(self, dim: int, num_heads: int, hidden: int):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.before = PointerAttention(dim, num_heads, rotary=True)
        self.inputs = PointerAttention(dim, num_heads, rotary=False)
        self.mlp = ChannelMlp(dim, hidden)

    def remembered(self, encoded: Tensor) -> Memory:
        """Keys and values of the encoded inputs, made once for all steps."""
        return self.inputs.memory(encoded)

    def forward(
        self, x: Tensor, start: int, so_far: Memory | None, inputs: Memory, hidden_from: Tensor | None
    ) -> tuple[Tensor, Memory]:
        """The next steps (B, M, dim), and keys and values of all steps so far."""
        seen = self.norm1(x)
        key, value = self.before.memory(seen, start)
        if so_far is not None:
            key, value = torch.cat([so_far[0], key], 2), torch.cat([so_far[1], value], 2)
        x = x + self.before(seen, (key, value), start=start, causal=True)
        x = x + self.inputs(self.norm2(x), inputs, hidden_from)
        return x + self.mlp(self.norm3(x)), (key, value)


class TransformerPointer(PointsAtInputs):
    """A pointer network whose encoder and decoder are Transformer layers: pre-norm, GELU, attention unbiased.

    The paper has LSTMs alone; the form and its sizes are ours. What the decoder is told stays the paper's:
    the start, then the inputs that were chosen, as they are. With `order` the encoder turns queries and keys
    by the inputs' positions (rotary), which the lowest index of a hull or the first city of a tour needs;
    without it the inputs are a set: another order of them gives the same probabilities in that order.

    Cost of an answer of T steps, in multiply-adds: ``N L (4 C^2 + 2 N C + 2 C H)`` of the encoder,
    ``L (T (6 C^2 + 2 C H) + 2 N C^2 + T^2 C + 2 T N C)`` of the decoder, and the head's.

    Args:
        in_dim: numbers of an input.
        dim: channels C.
        depth: layers L of each side.
        num_heads: of attention.
        hidden: channels H of the MLPs; None for ``4 dim``.
        order: whether the encoder knows the order of its inputs.
        ends: whether answers end by a choice.
        head: in the place of `PointerHead(dim)`.

    Raises:
        InvalidInput: sizes below 1, heads that do not divide `dim`, or a head of odd width.
    """

    def __init__(
        self,
        in_dim: int = 2,
        dim: int = 128,
        *,
        depth: int = 3,
        num_heads: int = 8,
        hidden: int | None = None,
        order: bool = True,
        ends: bool = True,
        head: nn.Module | None = None,
    ):
        super().__init__(in_dim, dim, PointerHead(dim) if head is None else head, ends=ends)
        hidden = 4 * dim if hidden is None else hidden
        checks.positive("TransformerPointer", depth=depth, hidden=hidden)
        self.depth, self.num_heads, self.order = depth, num_heads, order
        self.embed = nn.Linear(in_dim, dim)
        self.encoder = nn.ModuleList(
            PointerEncoderLayer(dim, num_heads, hidden, rotary=order) for _ in range(depth)
        )
        self.encoder_norm = nn.LayerNorm(dim)
        self.decoder_embed = nn.Linear(in_dim, dim)
        self.decoder = nn.ModuleList(PointerDecoderLayer(dim, num_heads, hidden) for _ in range(depth))
        self.decoder_norm = nn.LayerNorm(dim)
        nn.init.uniform_(self.start, -1.0, 1.0)
        if self.end is not None:
            nn.init.normal_(self.end)

    @property
    def configuration(self) -> str:
        """By which its states are known."""
        return (
            f"TransformerPointer({self.in_dim}, dim={self.dim}, depth={self.depth}, "
            f"num_heads={self.num_heads}, order={self.order}, ends={self.ends})"
        )

    def encode(self, points: Tensor, lengths: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Encoded inputs, and keys and values of each layer of the decoder for them."""
        held: dict[str, Tensor] = {}
        hidden_from = None
        if lengths is not None:
            behind = torch.arange(points.shape[1], device=points.device) >= lengths[:, None]
            hidden_from = torch.zeros_like(behind, dtype=points.dtype).masked_fill(behind, -torch.inf)
            hidden_from = held["hidden_from"] = hidden_from[:, None, None]
        x = apply_linear(self.embed, points)
        for layer in self.encoder:
            x = layer(x, hidden_from)
        x = self.encoder_norm(x)
        for i, layer in enumerate(cast(Sequence[PointerDecoderLayer], self.decoder)):
            held[f"input_keys{i}"], held[f"input_values{i}"] = layer.remembered(x)
        return x, held

    def decode(self, inputs: Tensor, state: SequenceState) -> tuple[Tensor, dict[str, Tensor]]:
        """Decoder states of the next inputs, over all before them."""
        x, held = apply_linear(self.decoder_embed, inputs), {}
        hidden_from = state.held.get("hidden_from")
        for i, layer in enumerate(self.decoder):
            so_far = (state[f"keys{i}"], state[f"values{i}"]) if state.length else None
            known = state[f"input_keys{i}"], state[f"input_values{i}"]
            x, (held[f"keys{i}"], held[f"values{i}"]) = layer(x, state.length, so_far, known, hidden_from)
        return self.decoder_norm(x), held
