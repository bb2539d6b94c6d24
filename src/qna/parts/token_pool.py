"""Token-aware average pooling: each position is averaged over a neighbourhood that it chooses itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TokenAwarePool2d(nn.Module):
    """``sum_i w_i Pool_i(x)``: averages of 3 x 3 positions at growing dilation, weighted at each position.

    Guo, Stutz, Schiele, "Robustifying Token Attention for Vision Transformers", ICCV 2023 (arXiv 2303.11126).
    Branch 0 is x itself, branch i the mean of nine positions i apart, divided by nine at borders too (zeros
    stand outside). The weights, shared by channels, are the softmax of two 3 x 3 convolutions with a batch
    norm and no activation between. A position takes 9 C K + 9 K^2 multiply-adds for the weights of K branches
    and 10 K C for the averages.

    Args:
        dim: channels.
        scales: branches, of dilation 0 to scales - 1.
    """

    def __init__(self, dim: int, scales: int = 4):
        super().__init__()
        self.scales = scales
        # as the authors name it: convolution, norm, convolution
        self.proj = nn.Sequential(
            nn.Conv2d(dim, scales, 3, padding=1, bias=False),
            nn.BatchNorm2d(scales),
            nn.Conv2d(scales, scales, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        x = x.permute(0, 3, 1, 2)
        weights = self.proj(x).softmax(1)
        nine = x.new_full((1, 1, 3, 3), 1 / 9).expand(x.shape[1], -1, -1, -1)
        pooled = weights[:, :1] * x
        for i in range(1, self.scales):
            mean = F.conv2d(x, nine, padding=i, dilation=i, groups=x.shape[1])
            pooled = pooled + weights[:, i : i + 1] * mean
        return pooled.permute(0, 2, 3, 1)


def attention_diversification(weights: Tensor, threshold: float = 2.0) -> Tensor:
    """How alike the attention of a layer's queries is: the mean cosine of each to the mean of all.

    The loss of the same paper. Weights of at most ``threshold / N`` count as zero, in the rows and in their
    mean, which is taken before; a row without any other has a cosine of 0.

    Args:
        weights: (B, heads, N, N), rows that sum to 1.
        threshold: in units of even attention.

    Returns:
        one number from 0 to 1, at least fp32.
    """
    # in half precision a cosine near 1 would be 1
    rows = weights.to(torch.promote_types(weights.dtype, torch.float32)).mean(1)
    least = threshold / rows.shape[-1]
    mean = rows.mean(1, keepdim=True)
    rows, mean = (torch.where(part > least, part, 0.0) for part in (rows, mean))
    return F.cosine_similarity(mean, rows, dim=-1).mean()
