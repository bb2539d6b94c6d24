"""Attention of one query over examples, without positions, residual or bias, and the matrices it learns."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from qna._core.errors import InvalidInput, check_choice

SOFTMAX, MEAN, SUM = "softmax", "mean", "sum"
KINDS = (SOFTMAX, MEAN, SUM)


class InContextAttention(nn.Module):
    """Multi-head attention of a query token that is not among the examples.

        y = sum_h OV_h sum_l a_hl z_l        a_h = softmax_l(z_l^T KQ_h z_q)
        KQ_h = K_h^T Q_h / sqrt(width)       OV_h = O_h V_h

    as He, Pan, Chen and Yang write it (ICML 2025, arXiv 2503.12734), a head as wide as a token. For linear
    attention a_h are the scores themselves, divided by the examples of the prompt ("mean") or by the number
    that `examples` names, whatever the prompt ("sum"). Cost: ``heads * width * (2 L + 2 width)``
    multiply-adds a query, and 4 L bytes of scores a head in fp32.

    Args:
        width: channels of a token.
        heads: of attention.
        outputs: tasks.
        kind: "softmax", "mean" or "sum".
        examples: what "sum" divides by: the examples that the network is trained on.

    Raises:
        InvalidInput: for sizes below 1 or another kind.
    """

    def __init__(self, width: int, heads: int, outputs: int = 1, *, kind: str = SOFTMAX, examples: int = 1):
        super().__init__()
        if min(width, heads, outputs, examples) < 1:
            raise InvalidInput(
                f"width, heads, outputs and examples must be at least 1, got {width}, {heads}, {outputs} and "
                f"{examples}"
            )
        self.width, self.heads, self.outputs, self.examples = width, heads, outputs, examples
        self.kind = check_choice("kind of attention", kind, KINDS)
        self.q_proj = nn.Linear(width, heads * width, bias=False)
        self.k_proj = nn.Linear(width, heads * width, bias=False)
        self.v_proj = nn.Linear(width, heads * width, bias=False)
        self.o_proj = nn.Linear(heads * width, outputs, bias=False)

    def kq(self) -> Tensor:
        """What a head compares examples and query by, (heads, width, width), the scale included."""
        q, k = (linear.weight.unflatten(0, (self.heads, self.width)) for linear in (self.q_proj, self.k_proj))
        return k.mT @ q / math.sqrt(self.width)

    def ov(self) -> Tensor:
        """What a head makes of the examples that it attends, (heads, outputs, width)."""
        v = self.v_proj.weight.unflatten(0, (self.heads, self.width))
        o = self.o_proj.weight.unflatten(1, (self.heads, self.width))
        return o.transpose(0, 1) @ v

    def forward(self, tokens: Tensor, query: Tensor) -> Tensor:
        """Answer the queries.

        Args:
            tokens: examples (B, L, width).
            query: (B, width).

        Returns:
            (B, outputs).
        """
        if tokens.ndim != 3 or tokens.shape[-1] != self.width or query.shape != tokens.shape[::2]:
            raise InvalidInput(
                f"tokens must be (B, L, {self.width}) and query (B, {self.width}), got {tuple(tokens.shape)} "
                f"and {tuple(query.shape)}"
            )
        if not tokens.shape[1]:
            raise InvalidInput("a prompt needs an example, got none")
        asked = torch.einsum("hij,bj->bih", self.kq(), query)
        scores = tokens @ asked
        if self.kind == SOFTMAX:
            shares = scores.softmax(1)
        else:
            shares = scores / (tokens.shape[1] if self.kind == MEAN else self.examples)
        return torch.einsum("bhi,hoi->bo", shares.mT @ tokens, self.ov())
