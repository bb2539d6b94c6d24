"""A head that answers with one of its candidates: scores of queries and candidates, as many as there are."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from qna._core import checks
from qna._core.errors import InvalidInput, check_choice
from qna.parts.linear import apply_linear

ADDITIVE, DOT, BILINEAR = "additive", "dot", "bilinear"
SCORES = (ADDITIVE, DOT, BILINEAR)


class PointerHead(nn.Module):
    """Logits over candidates instead of a fixed vocabulary (Vinyals, Fortunato, Jaitly, NIPS 2015, eq. 3).

    For a query d and candidates c_1 .. c_N, as many as there are::

        additive   u_j = v^T tanh(W1 c_j + W2 d)      the paper's
        dot        u_j = d^T c_j                      of one width, no parameters, not scaled
        bilinear   u_j = d^T W c_j
        p_j = softmax_j(u)

    The candidates are never summed up as attention does: the softmax is the answer. No biases. `clip` bounds
    the logits by ``clip * tanh(u)``, which later networks for routes do and the paper does not.

    Cost, in multiply-adds: additive ``N C_c H + M C_q H + M N H`` with M N H tangents and as many elements
    held in training; dot ``M N C``; bilinear ``N C_c C_q + M N C_q``. What depends on candidates alone (W1 c,
    W c) is made once by `prepare` and scored against any number of queries.

    What goes wrong elsewhere: these are logits, for `cross_entropy`; a softmax before it learns badly
    and silently.

    Args:
        query_dim: channels C_q of a query.
        candidate_dim: channels C_c of a candidate; None for as many.
        hidden: channels H of the additive form; None for those of the candidates, so that W1 is square.
        score: "additive", "dot" or "bilinear".
        clip: bound of the logits; None for none.

    Raises:
        InvalidInput: a size below 1, a clip that is not above 0, widths that differ with "dot", or `hidden`
            where the form has none.
    """

    def __init__(
        self,
        query_dim: int,
        candidate_dim: int | None = None,
        *,
        hidden: int | None = None,
        score: str = ADDITIVE,
        clip: float | None = None,
    ):
        super().__init__()
        candidate_dim = query_dim if candidate_dim is None else candidate_dim
        self.score = check_choice("score of a pointer head", score, SCORES)
        if hidden is not None and score != ADDITIVE:
            raise InvalidInput(
                f"PointerHead: hidden is of the additive form alone, got {hidden} with {score!r}"
            )
        hidden = candidate_dim if hidden is None else hidden
        checks.positive("PointerHead", query_dim=query_dim, candidate_dim=candidate_dim, hidden=hidden)
        if score == DOT and query_dim != candidate_dim:
            raise InvalidInput(
                f"PointerHead: a dot product needs one width, got query_dim={query_dim} and "
                f"candidate_dim={candidate_dim}; score='bilinear' takes two"
            )
        if clip is not None and (isinstance(clip, bool) or not 0 < clip < math.inf):
            raise InvalidInput(f"PointerHead: clip must be above 0 and finite, got {clip!r}")
        self.query_dim, self.candidate_dim, self.clip = query_dim, candidate_dim, clip
        if score == ADDITIVE:
            self.of_candidate = nn.Linear(candidate_dim, hidden, bias=False)
            self.of_query = nn.Linear(query_dim, hidden, bias=False)
            self.v = nn.Linear(hidden, 1, bias=False)
        elif score == BILINEAR:
            self.of_candidate = nn.Linear(candidate_dim, query_dim, bias=False)

    def forward(self, query: Tensor, candidates: Tensor, mask: Tensor | None = None) -> Tensor:
        """Score every candidate for every query.

        Args:
            query: (B, M, C_q).
            candidates: (B, N, C_c), or of a map (B, *space, C_c): its positions are the candidates.
            mask: bool, True for those that may be pointed at: (B, *space), or (B, M, *space) where queries
                differ. The others get -inf, that is probability 0; a query that has none left has no
                distribution.

        Returns:
            Logits (B, M, N), of a map (B, M, *space).
        """
        space = candidates.shape[1:-1]
        if candidates.ndim < 3 or candidates.shape[-1] != self.candidate_dim:
            raise InvalidInput(
                f"PointerHead: candidates must be (B, N, C) or a map (B, *space, C) with C = "
                f"{self.candidate_dim}, got {tuple(candidates.shape)}"
            )
        if query.ndim != 3 or query.shape[::2] != (candidates.shape[0], self.query_dim):
            raise InvalidInput(
                f"PointerHead: queries must be (B, M, C) with B = {candidates.shape[0]} and C = "
                f"{self.query_dim}, got {tuple(query.shape)}"
            )
        if mask is not None:
            mask = self._flat(mask, query.shape[:2], space)
        return self.pointed(query, self.prepare(candidates.flatten(1, -2)), mask).unflatten(-1, space)

    def prepare(self, candidates: Tensor) -> Tensor:
        """What depends on candidates alone: (B, N, C_c) -> (B, N, C')."""
        return candidates if self.score == DOT else apply_linear(self.of_candidate, candidates)

    def pointed(self, query: Tensor, prepared: Tensor, mask: Tensor | None = None) -> Tensor:
        """Score queries against what `prepare` gave.

        Args:
            query: (B, M, C_q).
            prepared: (B, N, C').
            mask: bool, broadcasting with (B, M, N).

        Returns:
            (B, M, N).
        """
        if self.score == ADDITIVE:
            met = torch.tanh(prepared[:, None] + apply_linear(self.of_query, query)[:, :, None])
            # one channel comes out: routes that are fast for maps are slow for it
            logits = self.v(met).squeeze(-1)
        else:
            logits = query @ prepared.mT
        if self.clip is not None:
            logits = self.clip * torch.tanh(logits)
        # behind the clip, or what is masked would become -clip
        return logits if mask is None else logits.masked_fill(~mask, -torch.inf)

    def macs(self, queries: int, candidates: int) -> int:
        """Multiply-adds for one sample."""
        if self.score == DOT:
            return queries * candidates * self.query_dim
        width = self.of_candidate.out_features
        made = candidates * self.candidate_dim * width + queries * candidates * width
        return made + (queries * self.query_dim * width if self.score == ADDITIVE else 0)

    def extra_repr(self) -> str:
        """Shown by `print`."""
        return f"{self.query_dim}, {self.candidate_dim}, score={self.score!r}, clip={self.clip}"

    @staticmethod
    def _flat(mask: Tensor, queries: torch.Size, space: torch.Size) -> Tensor:
        """(B, 1, N) or (B, M, N) of a mask of candidates."""
        if mask.dtype != torch.bool:
            raise InvalidInput(
                f"PointerHead: a mask is bool, True for what may be pointed at, got {mask.dtype}"
            )
        if mask.shape == (queries[0], *space):
            return mask.flatten(1)[:, None]
        if mask.shape == (*queries, *space):
            return mask.flatten(2)
        raise InvalidInput(
            f"PointerHead: a mask must be {(queries[0], *space)} or {(*queries, *space)}, got "
            f"{tuple(mask.shape)}"
        )
