"""The pointer network as published: one layer of LSTM that reads, one that points."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from qna.models.pointer.pointing import PointsAtInputs
from qna.parts.pointer_head import PointerHead
from qna.parts.sequence_state import SequenceState

# of the uniform distribution that all weights begin with, both ways
INITIAL = 0.08


class PointerNetwork(PointsAtInputs):
    """Encoder and decoder of one LSTM layer each; the decoder begins with the encoder's last state.

    All parameters begin uniformly in (-0.08, 0.08). The encoder reads its inputs in their order: the head
    alone knows no order. Cost of an answer of T steps, in multiply-adds: ``4 h (in_dim + h) (N + T)`` and the
    head's.

    Args:
        in_dim: numbers of an input.
        dim: channels h, 256 or 512 in the paper.
        ends: whether answers end by a choice.
        head: in the place of `PointerHead(dim)`.
    """

    def __init__(self, in_dim: int = 2, dim: int = 256, *, ends: bool = True, head: nn.Module | None = None):
        super().__init__(in_dim, dim, PointerHead(dim) if head is None else head, ends=ends)
        self.encoder = nn.LSTM(in_dim, dim, batch_first=True)
        self.decoder = nn.LSTM(in_dim, dim, batch_first=True)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -INITIAL, INITIAL)

    @property
    def configuration(self) -> str:
        """By which its states are known."""
        return f"PointerNetwork({self.in_dim}, dim={self.dim}, ends={self.ends})"

    def encode(self, points: Tensor, lengths: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Encoder states, and the last one of each sample."""
        if lengths is None or bool((lengths == points.shape[1]).all()):
            encoded, (h, c) = self.encoder(points)
        else:
            # what lies behind the last input of a sample must not go into its last state
            packed = pack_padded_sequence(points, lengths.cpu(), batch_first=True, enforce_sorted=False)
            encoded, (h, c) = self.encoder(packed)
            encoded, _ = pad_packed_sequence(encoded, batch_first=True, total_length=points.shape[1])
        return encoded, {"h": h[0], "c": c[0]}

    def decode(self, inputs: Tensor, state: SequenceState) -> tuple[Tensor, dict[str, Tensor]]:
        """Decoder states of the next inputs."""
        decoded, (h, c) = self.decoder(inputs, (state["h"][None], state["c"][None]))
        return decoded, {"h": h[0], "c": c[0]}
