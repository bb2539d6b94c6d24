"""Attention of tokens with fewer matrices: queries and keys, and values and output, collapsed or left out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core import checks
from qna._core.errors import check_choice
from qna.parts.attend import attend
from qna.parts.initializers import init_linear_, truncated_normal_
from qna.parts.linear import apply_linear, linear

FULL, COLLAPSED, SYMMETRIC, NONE = "full", "collapsed", "symmetric", "none"
QK = (FULL, COLLAPSED, SYMMETRIC)
VALUES = (FULL, COLLAPSED, NONE)


class MinimalAttention(nn.Module):
    """Self-attention of tokens (Bermeitinger et al., 2024) in any of its reduced forms.

    Of a head with d of the C channels, and x the tokens as rows, scores S and output y are::

        S = (x W_q + b_q) (x W_k + b_k)^T      qk "full"
        S = (x W + b) x^T                      qk "collapsed": W is C x C
        S = (x_h T) (x_h T)^T                  qk "symmetric": T is lower triangular, x_h the head's channels

        y = sum_h A_h (x W_v + b_v) W_o + b_o  value "full", with A = softmax(S / sqrt(d)) of each head
        y = sum_h A_h x W + b                  value "collapsed": W is C x C
        y = A_h x_h, side by side              value "none"

    Collapsed forms compute what full ones do where ``W = W_q W_k^T``, ``b = b_q W_k^T`` (what is left of the
    biases is the same for all keys of a query) and ``W = W_v W_o``, ``b = b_v W_o + b_o`` (rows of A sum to
    1); `qna.parts.minimal_folding` makes one of the other. Symmetric scores are a positive semidefinite
    form: ``S = S^T`` and ``S_ii >= 0``. Without values, tokens stay in the convex hull of the tokens, head by
    head.

    One head is what is published of the collapsed forms; h heads, ours, take h matrices of C x C, which saves
    nothing from two heads on. Parameters, with biases: of queries and keys 2 C^2 + 2 C, h (C^2 + C), or h d
    (d + 1) / 2; of values and output 2 C^2 + 2 C, h C^2 + C, or none. Multiply-adds of n tokens: 2 n C^2, h n
    C^2, or n C d; 2 n C^2, h n C^2, or none; and 2 n^2 C for scores and averages, 2 h n^2 C where anything is
    collapsed: what is not is filled up with zeros then, since torch's fused kernels want queries and values
    of one size, and scores of all pairs would be held otherwise.

    All tokens see all others, in any order; no form is causal by itself.

    Args:
        dim: channels of input and output.
        num_heads: heads; divides `dim`.
        qk: "full", "collapsed" or "symmetric".
        value: "full", "collapsed" or "none".
        bias: whether linear maps have biases.
        attn_drop: dropout of the weights A, in training.

    Raises:
        UnknownName: for a form that there is not.
        InvalidInput: `num_heads` does not divide `dim`, or `attn_drop` is no rate below 1.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int = 1,
        qk: str = COLLAPSED,
        value: str = NONE,
        bias: bool = True,
        attn_drop: float = 0.0,
    ):
        super().__init__()
        self.head_dim = checks.head_dim(type(self).__name__, dim, num_heads)
        checks.rate(type(self).__name__, attn_drop=attn_drop)
        self.dim = self.out_dim = dim
        self.num_heads = num_heads
        self.qk_form = check_choice("qk", qk, QK)
        self.value_form = check_choice("value", value, VALUES)
        # of the head's share of the channels, also where its scores are of all of them
        self.scale = self.head_dim**-0.5
        # no module: most have none, and it would not be called in evaluation
        self.drop_weights = attn_drop
        if qk == FULL:
            self.q = nn.Linear(dim, dim, bias=bias)
            self.k = nn.Linear(dim, dim, bias=bias)
        elif qk == COLLAPSED:
            self.qk = nn.Linear(dim, num_heads * dim, bias=bias)
        else:
            # row by row of each head's triangle
            self.triangle = nn.Parameter(torch.empty(num_heads, self.head_dim * (self.head_dim + 1) // 2))
        if value == FULL:
            self.value = nn.Linear(dim, dim, bias=bias)
        if value != NONE:
            # of the heads' means of all channels where values are collapsed
            self.out = nn.Linear(dim if value == FULL else num_heads * dim, dim, bias=bias)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw anew: scores of normalised tokens then vary by about 1.

        A triangle begins near a multiple of the identity, at which a normalised token scores 1 with itself:
        of independent normal entries scores grow with d, and attention sees one token alone.
        """
        for layer in self.children():
            if isinstance(layer, nn.Linear):
                init_linear_(layer)
        if self.qk_form == COLLAPSED:
            # as a product of two matrices with d rows would be
            self.qk.weight.mul_(self.num_heads**-0.5)
        elif self.qk_form == SYMMETRIC:
            truncated_normal_(self.triangle, 0.02)
            ends = torch.arange(1, self.head_dim + 1, device=self.triangle.device)
            self.triangle[:, ends * (ends + 1) // 2 - 1] = self.head_dim**-0.25

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, dim) -> the same."""
        query, key, value = self.projected(x)
        if self.training and self.drop_weights:
            weights = F.dropout((query * self.scale @ key.transpose(-1, -2)).softmax(-1), self.drop_weights)
            return self.joined(weights @ value)
        return self.joined(attend(*of_one_size(query, key, value), scale=self.scale))

    def projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of tokens (B, N, dim), what their scores are products of, and what is averaged.

        Returns:
            queries and keys (B, heads, N, d), of all channels where they are collapsed, and values (B, heads,
            N, d), tokens themselves where there are none, of all channels where they are collapsed.
        """
        heads = (self.num_heads, self.head_dim)
        whole = x.unsqueeze(1).expand(-1, self.num_heads, -1, -1)
        if self.qk_form == COLLAPSED:
            query = apply_linear(self.qk, x).unflatten(-1, (self.num_heads, self.dim)).transpose(1, 2)
            key = whole
        elif self.qk_form == SYMMETRIC:
            query = key = self._through_triangles(x)
        else:
            query, key = (apply_linear(m, x).unflatten(-1, heads).transpose(1, 2) for m in (self.q, self.k))
        if self.value_form == COLLAPSED:
            return query, key, whole
        value = apply_linear(self.value, x) if self.value_form == FULL else x
        return query, key, value.unflatten(-1, heads).transpose(1, 2)

    def joined(self, y: Tensor) -> Tensor:
        """What comes out, (B, N, dim), of the heads' averages (B, heads, N, d); what is behind d is zeros."""
        if self.value_form != COLLAPSED:
            y = y[..., : self.head_dim]
        y = y.transpose(1, 2).flatten(2)
        return y if self.value_form == NONE else apply_linear(self.out, y)

    def weights(self, x: Tensor) -> Tensor:
        """The softmax A of tokens (B, N, dim), (B, heads, N, N), at least fp32; no dropout."""
        query, key, _ = self.projected(x)
        scores = query * self.scale @ key.transpose(-1, -2)
        return scores.to(torch.promote_types(scores.dtype, torch.float32)).softmax(-1)

    def triangles(self) -> Tensor:
        """T of each head, (heads, d, d), with zeros above the diagonal; of the symmetric form alone."""
        d = self.head_dim
        rows, columns = torch.tril_indices(d, d, device=self.triangle.device)
        flat = self.triangle.new_zeros(self.num_heads, d * d)
        return flat.index_copy(1, rows * d + columns, self.triangle).unflatten(1, (d, d))

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for tokens of `size` = (B, *space, dim); those of zeros are counted."""
        h, c = self.num_heads, self.dim
        scores = {FULL: 2 * c, COLLAPSED: h * c, SYMMETRIC: self.head_dim}[self.qk_form]
        averages = {FULL: 2 * c, COLLAPSED: h * c, NONE: 0}[self.value_form]
        return math.prod(size) * (scores + averages + 2 * self._width() * math.prod(size[1:-1]))

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: projected, filled up and averaged, or what is averaged and comes out."""
        n, h = math.prod(size), self.num_heads
        wide = self._width() * n
        projected = {FULL: 2 * n, COLLAPSED: h * n, SYMMETRIC: n}[self.qk_form]
        projected += n if self.value_form == FULL else 0
        if h > 1 and self.qk_form == COLLAPSED != self.value_form:
            projected += wide
        if h > 1 and self.value_form == COLLAPSED != self.qk_form:
            projected += 2 * wide
        return max(projected + wide, wide + n)

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        return f"{self.dim}, num_heads={self.num_heads}, qk={self.qk_form!r}, value={self.value_form!r}"

    def _width(self) -> int:
        """Channels that all heads together attend with, in units of `dim`."""
        return self.num_heads if COLLAPSED in (self.qk_form, self.value_form) else 1

    def _through_triangles(self, x: Tensor) -> Tensor:
        triangles = self.triangles()
        if self.num_heads == 1:
            return linear(x, triangles[0].T).unsqueeze(1)
        # heads first, so that a product stands for all tokens and images
        parts = x.unflatten(-1, (self.num_heads, self.head_dim)).movedim(2, 0)
        return (parts.flatten(1, 2) @ triangles).unflatten(1, x.shape[:2]).transpose(0, 1)


def of_one_size(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same with zeros behind the shorter ones' channels: neither scores nor averages are others."""
    more = query.shape[-1] - value.shape[-1]
    if more > 0:
        return query, key, F.pad(value, (0, more))
    if more < 0:
        return F.pad(query, (0, -more)), F.pad(key, (0, -more)), value
    return query, key, value
