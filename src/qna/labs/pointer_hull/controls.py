"""The same encoder and decoder without a pointer: outputs of a fixed vocabulary, the inputs' positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qna._core import checks
from qna.parts.linear import apply_linear
from qna.parts.pointer_head import PointerHead


class FixedVocabulary(nn.Module):
    """A linear map of decoder states to one logit for each position, and one to stop.

    In the place of a `PointerHead` of `PointsAtInputs`; positions behind the vocabulary cannot be named, and
    those behind a sample's last input are masked, as they are for the pointer.

    Args:
        dim: channels of decoder states.
        positions: of inputs that there are names for.
        attends: put attention over the encoder's states beside the decoder's state: additive as the pointer's
            scores, its weighted sum joined to the state. (It does not go into the decoder's next step.)
    """

    def __init__(self, dim: int, positions: int, *, attends: bool = False):
        super().__init__()
        checks.positive("FixedVocabulary", dim=dim, positions=positions)
        self.positions = positions
        self.scores = PointerHead(dim) if attends else None
        self.names = nn.Linear(2 * dim if attends else dim, positions + 1, bias=False)

    def prepare(self, candidates: Tensor) -> Tensor:
        """Nothing is made of the candidates alone: (B, N + 1, dim), the one to stop last."""
        return candidates

    def pointed(self, query: Tensor, prepared: Tensor, mask: Tensor) -> Tensor:
        """Decoder states (B, M, dim), encoder states and bool (B, 1, N + 1) -> logits (B, M, N + 1)."""
        inputs = prepared.shape[1] - 1
        if self.scores is not None:
            encoded = prepared[:, :inputs]
            shares = self.scores.pointed(query, self.scores.prepare(encoded), mask[..., :inputs]).softmax(-1)
            query = torch.cat([query, shares @ encoded], -1)
        names = apply_linear(self.names, query)
        named = min(inputs, self.positions)
        nameless = names.new_full((*names.shape[:2], inputs - named), -torch.inf)
        logits = torch.cat([names[..., :named], nameless, names[..., -1:]], -1)
        return logits.masked_fill(~mask, -torch.inf)
