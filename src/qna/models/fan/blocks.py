"""Blocks of fully attentional networks: attention of positions, then of channels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from qna._core import checks
from qna.mixers import FullAttention2d
from qna.models._parts.block import NORM_EPS, MixerBlock
from qna.models._parts.class_token import ClassAttention
from qna.models._parts.overlapping import init_convolution_
from qna.models.fan.maps import SampleVarianceNorm
from qna.parts.activation import apply_gelu
from qna.parts.image_view import on_image
from qna.parts.layer_scale import LayerScale
from qna.parts.linear import apply_linear
from qna.parts.losses import LossOutlet
from qna.parts.mlp import ChannelMlp
from qna.parts.rows import PositionRows
from qna.parts.token_pool import TokenAwarePool2d, attention_diversification


class JudgedAttention2d(FullAttention2d):
    """`FullAttention2d` that leaves `attention_diversification` of its weights in training, where asked to.

    Args:
        dim: channels.
        num_heads: heads; divides `dim`.
        threshold: of the loss; None for no loss.
    """

    def __init__(self, dim: int, *, num_heads: int, threshold: float | None):
        super().__init__(dim, num_heads=num_heads, bias=True)
        self.threshold = threshold
        self._outlet = LossOutlet()

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> the same."""
        if not self.training or self.threshold is None:
            return super().forward(x)
        query, key, value = self._packed(x)
        weights = (query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)).softmax(-1)
        self._outlet.leave(attention_diversification(weights, self.threshold))
        return apply_linear(self.out, (weights @ value).transpose(1, 2).reshape(x.shape))

    def take(self) -> list[Tensor]:
        """The loss of the last forward pass, once."""
        return self._outlet.take()


class ChannelAttentionMlp(nn.Module):
    """An MLP with convolutions whose output channels are weighed by what queries see (Zhou et al., 2022).

    With d channels of each of h heads, n positions, softmax over the positions and k the input itself,

        v = norm(fc2(z + gamma conv2(BN(GELU(conv1(z)))))),    z = fc1(x),    fc2's output of dim channels
        w_c = sigmoid(sum_n softmax(q)_{n,c} mean_{c' in head} softmax(x)_{n,c'}) temperature_h
        y_{n,c} = w_c v_{n,c}

    No activation stands between `fc1` and `fc2` but the one inside the convolutions' branch, as in the
    authors' code. A position takes C^2 + 2 C multiply-adds for the weights, and 2 C H + 18 H for the MLP of H
    hidden channels.

    Args:
        dim: channels.
        hidden: channels between the linear maps.
        num_heads: of the weights; divides `dim`.
    """

    def __init__(self, dim: int, hidden: int, num_heads: int):
        super().__init__()
        checks.head_dim(type(self).__name__, dim, num_heads)
        self.num_heads = num_heads
        self.temperature = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.q = nn.Linear(dim, dim)
        self.fc1 = nn.Linear(dim, hidden)
        self.conv1 = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.act = nn.GELU()
        self.bn = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.gamma = nn.Parameter(torch.ones(hidden))
        self.fc2 = nn.Linear(hidden, dim)
        # torch's, where those of blocks have 1e-6
        self.norm = nn.LayerNorm(dim)
        for linear in (self.q, self.fc1, self.fc2):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
        init_convolution_(self.conv1)
        init_convolution_(self.conv2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        z = apply_linear(self.fc1, x)
        z = z + self.gamma * on_image(self._mixed, z)
        return self.channel_weights(x) * self.norm(apply_linear(self.fc2, z))

    def _mixed(self, z: Tensor) -> Tensor:
        return self.conv2(self.bn(apply_gelu(self.act, self.conv1(z))))

    def channel_weights(self, x: Tensor) -> Tensor:
        """w of the map (B, H, W, C): (B, 1, 1, C)."""
        heads = (self.num_heads, x.shape[-1] // self.num_heads)
        query = apply_linear(self.q, x).flatten(1, 2).softmax(1).unflatten(-1, heads)
        key = x.flatten(1, 2).softmax(1).unflatten(-1, heads).mean(-1)
        scores = torch.einsum("bnhd,bnh->bhd", query, key)
        return (scores.sigmoid() * self.temperature[:, 0]).flatten(1)[:, None, None]

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size` = (B, H, W, C)."""
        dim, hidden = size[-1], self.fc1.out_features
        return math.prod(size[:-1]) * (dim**2 + 2 * dim + 2 * dim * hidden + 18 * hidden)


class FullyAttentionalBlock(MixerBlock):
    """A `MixerBlock` of `FullAttention2d` and `ChannelAttentionMlp`, whose attention may read pooled tokens.

    ``x + gamma_1 attention(norm(TAP(x)))``, then ``x + gamma_2 mlp(norm(x))``; see `TokenAwarePool2d`.

    Args:
        dim: channels.
        num_heads: of both kinds of attention.
        hidden: channels of the MLP.
        scales: branches of the pooling of tokens; 0 for none.
        threshold: of the loss on the attention's weights in training; None for no loss.
        drop_path: probability that a branch is left out for an image, in training.
    """

    mixer: JudgedAttention2d
    mlp: ChannelAttentionMlp

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        hidden: int,
        scales: int = 0,
        threshold: float | None = None,
        drop_path: float = 0.0,
    ):
        super().__init__(
            dim,
            JudgedAttention2d(dim, num_heads=num_heads, threshold=threshold),
            out_dim=dim,
            drop_path=drop_path,
            layer_scale=1.0,
            mlp=ChannelAttentionMlp(dim, hidden, num_heads),
        )
        self.pool: nn.Module = TokenAwarePool2d(dim, scales) if scales else nn.Identity()
        for linear in (self.mixer.qkv, self.mixer.out):
            nn.init.normal_(linear.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        x = self.shortcut(x) + self.drop_path1(self.scale1(self.mixer(self.norm1(self.pool(x)))))
        return x + self.drop_path2(self.scale2(self.mlp(self.norm2(x))))

    def held(self, size: Sequence[int]) -> int:
        """Elements beside an input of `size` = (B, H, W, C) at the worst moment of inference.

        Of the mixer's half the attention, of the other the hidden channels before, between and after the
        convolutions.
        """
        n = math.prod(size)
        hidden = n // size[-1] * self.mlp.fc1.out_features
        return max(n + self.mixer.held(size), 2 * n + 3 * hidden)

    def position_step(self, x: Tensor) -> tuple[PositionRows, None]:
        """Where each position looks; what it is averaged of before is its own."""
        return self.mixer.attention_rows(self.norm1(self.pool(x))), None


class ClassReader(nn.Module):
    """A learned token that attends itself and a map, block by block; classes are read off it.

    A block, on tokens of which the class's is the first, with a the attention of the first alone:

        t = t + gamma_1 [a(norm(t)), norm(t)_1, ...],    t = norm(t)
        t = [t_0 + gamma_2 mlp(t_0), 2 t_1, ...]

    The factors of all but the first token are those of the authors' code: a skip path of what nothing is
    added to.

    Args:
        dim: channels.
        num_heads: heads; divides `dim`.
        hidden: channels of the MLPs.
        depth: blocks.
    """

    def __init__(self, dim: int, *, num_heads: int, hidden: int, depth: int):
        super().__init__()
        self.token = nn.Parameter(torch.empty(1, 1, dim))
        nn.init.normal_(self.token, std=0.02)
        self.blocks = nn.Sequential(*(ClassReaderBlock(dim, num_heads, hidden) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the class token as a map of one position, (B, 1, 1, C)."""
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), x.flatten(1, 2)], 1)
        return self.blocks(tokens)[:, None, :1]

    def no_weight_decay(self) -> set[str]:
        """The token's name."""
        return {"token"}


class ClassReaderBlock(nn.Module):
    """One block of `ClassReader`."""

    def __init__(self, dim: int, num_heads: int, hidden: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attention = ClassAttention(dim, num_heads)
        self.scale1 = LayerScale(dim, 1.0)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = ChannelMlp(dim, hidden, approximate="none")
        self.scale2 = LayerScale(dim, 1.0)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, 1 + n, C) -> the same."""
        normed = self.norm1(tokens)
        tokens = tokens + self.scale1(torch.cat([self.attention(normed), normed[:, 1:]], 1))
        tokens = self.norm2(tokens)
        token = tokens[:, :1] + self.scale2(self.mlp(tokens[:, :1]))
        return torch.cat([token, 2 * tokens[:, 1:]], 1)


class ConvNeXtBlock(nn.Module):
    """``x + gamma mlp(norm(conv(x)))`` with a depthwise convolution of 7 x 7 (Liu et al., CVPR 2022)."""

    def __init__(self, dim: int):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = SampleVarianceNorm(dim)
        self.mlp = ChannelMlp(dim, 4 * dim, approximate="none")
        self.scale = LayerScale(dim, 1e-6)
        for layer in (self.conv, self.mlp.fc1, self.mlp.fc2):
            nn.init.normal_(layer.weight, std=0.02)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        return x + self.scale(self.mlp(self.norm(on_image(self.conv, x))))
