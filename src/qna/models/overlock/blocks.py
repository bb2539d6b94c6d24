"""What OverLoCK is made of beside its dynamic kernels: residual convolutions, scales, its two blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna.mixers import ContMix2d, DilatedReparam2d
from qna.parts.activation import apply_gelu
from qna.parts.drop_path import DropPath
from qna.parts.image_view import on_image
from qna.parts.linear import apply_linear
from qna.parts.squeeze_excite import SqueezeExcite

# of the layer norms, and in the response norm
NORM_EPS = 1e-6


class ResidualDepthwise(nn.Module):
    """``x + DW(x)``: a depthwise convolution of 3 x 3 with a bias, and its input."""

    def __init__(self, dim: int):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        return x + on_image(self.conv, x)


class ChannelAffine(nn.Module):
    """A learned factor, at first 1, and a learned shift of each channel.

    The trap: what the authors call a layer scale shifts too.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> the same."""
        return x * self.weight + self.bias

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size`: one for each number, as the authors' convolution of one tap."""
        return math.prod(size)


class ResponseNorm(nn.Module):
    """Global response normalisation (Woo et al., CVPR 2023): ``x (1 + gamma n) + beta``.

    n is each channel's norm over the map, over the mean of all channels' norms. At first the identity.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(dim))
        self.beta = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        # squares of half precision overflow, also those that autocast makes
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        response = torch.linalg.vector_norm(wide, dim=(1, 2), keepdim=True)
        response = response / (response.mean(-1, keepdim=True) + NORM_EPS)
        return x * (1 + self.gamma * response).to(x.dtype) + self.beta.to(x.dtype)


class ConvolvedMlp(nn.Module):
    """Two linear maps; between them a GELU, a residual depthwise convolution and a response norm."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.conv = ResidualDepthwise(hidden)
        self.norm = ResponseNorm(hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        hidden = apply_gelu(self.act, apply_linear(self.fc1, x))
        return apply_linear(self.fc2, self.norm(self.conv(hidden)))


class LargeKernelBlock(nn.Module):
    """A static kernel in front of an MLP: the block of the base and overview networks.

    ``x = x + DW(x)``, then ``x = scale(x) + mlp(SE(BN(DR(LN(x)))))``: the trap is that the scale is on the
    skip path. DR is `DilatedReparam2d`.

    Args:
        dim: channels.
        kernel_size: of DR.
        mlp_ratio: hidden channels of the MLP per channel.
        scaled: whether the skip path has a scale.
        drop_path: probability that the branch is left out for an image, in training.
        deploy: whether DR begins in its deployed form.
    """

    def __init__(
        self, dim: int, *, kernel_size: int, mlp_ratio: int, scaled: bool, drop_path: float, deploy: bool
    ):
        super().__init__()
        self.conv = ResidualDepthwise(dim)
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mixer = DilatedReparam2d(dim, kernel_size=kernel_size, deploy=deploy)
        self.mixer_norm = nn.BatchNorm2d(dim)
        self.excite = SqueezeExcite(dim)
        self.mlp = ConvolvedMlp(dim, mlp_ratio * dim)
        self.scale = ChannelAffine(dim) if scaled else nn.Identity()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        x = self.conv(x)
        mixed = self.excite(on_image(self.mixer_norm, self.mixer(self.norm(x))))
        return self.scale(x) + self.drop_path(self.mlp(mixed))


class ContextFusion(nn.Module):
    """A map and its context become one map: DW of 3 x 3, BN, GELU, a linear map, a response norm."""

    def __init__(self, dim: int, out_dim: int):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm = nn.BatchNorm2d(dim)
        self.act = nn.GELU()
        self.linear = nn.Linear(dim, out_dim)
        self.response = ResponseNorm(out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, H, W, out_dim)."""
        x = on_image(lambda image: self.norm(self.conv(image)), x)
        return self.response(apply_linear(self.linear, apply_gelu(self.act, x)))


class DynamicBlock(nn.Module):
    """Dynamic kernels, made of a context, in front of an MLP: the block of the focus network.

    Map and context go side by side, x and h in one map of C + D channels. With the overview g::

        h = scale(h) + scale(g)                              not in the network's first block
        z = [x, h];  z = z + DW(z);  u = LN(z)
        z = scale(z) + ContMix(fusion(u)), with queries of u's x and keys of its h
        z = z + DW(z);  z = scale(z) + mlp(LN(z))

    Args:
        dim: channels C of the map.
        context_dim: channels D of context and overview.
        num_heads: of `ContMix2d`.
        kernel_size: of its large kernel.
        small_kernel_size: of its small one.
        mlp_ratio: hidden channels of the MLP for each of the map's C.
        first: whether the context is the overview itself.
        drop_path: probability that a branch is left out for an image, in training.
        deploy: whether the static kernel begins in its deployed form.
    """

    def __init__(
        self,
        dim: int,
        context_dim: int,
        *,
        num_heads: int,
        kernel_size: int,
        small_kernel_size: int,
        mlp_ratio: int,
        first: bool,
        drop_path: float,
        deploy: bool,
    ):
        super().__init__()
        whole = dim + context_dim
        self.dims = (dim, context_dim)
        self.context_scale = None if first else ChannelAffine(context_dim)
        self.overview_scale = None if first else ChannelAffine(context_dim)
        self.conv1 = ResidualDepthwise(whole)
        self.norm1 = nn.LayerNorm(whole, eps=NORM_EPS)
        self.fusion = ContextFusion(whole, dim)
        self.mixer = ContMix2d(
            dim,
            num_heads=num_heads,
            kernel_size=kernel_size,
            small_kernel_size=small_kernel_size,
            context_dim=context_dim,
            out_dim=whole,
            value=False,
            deploy=deploy,
        )
        self.scale1 = ChannelAffine(whole)
        self.conv2 = ResidualDepthwise(whole)
        self.norm2 = nn.LayerNorm(whole, eps=NORM_EPS)
        # the trap: hidden channels are counted from the map alone
        self.mlp = ConvolvedMlp(whole, mlp_ratio * dim)
        self.scale2 = ChannelAffine(whole)
        self.drop_path1, self.drop_path2 = DropPath(drop_path), DropPath(drop_path)

    def forward(self, z: Tensor, overview: Tensor) -> Tensor:
        """Map with context (B, H, W, C + D) and overview (B, H, W, D) -> (B, H, W, C + D)."""
        if self.context_scale is not None and self.overview_scale is not None:
            x, context = z.split(self.dims, -1)
            z = torch.cat([x, self.context_scale(context) + self.overview_scale(overview)], -1)
        z = self.conv1(z)
        normed = self.norm1(z)
        query, context = normed.split(self.dims, -1)
        mixed = self.mixer(self.fusion(normed), query, context)
        z = self.conv2(self.scale1(z) + self.drop_path1(mixed))
        return self.scale2(z) + self.drop_path2(self.mlp(self.norm2(z)))


class NormedHalving(nn.Module):
    """A convolution of 3 x 3 at stride 2 without bias, and batch norm."""

    def __init__(self, dim: int, out_dim: int):
        super().__init__()
        self.conv = nn.Conv2d(dim, out_dim, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, ceil(H / 2), ceil(W / 2), out_dim)."""
        return on_image(lambda image: self.norm(self.conv(image)), x)


class ContextHalving(nn.Module):
    """A map and its context at half their size, each by a `NormedHalving` of its own."""

    def __init__(self, dim: int, out_dim: int, context_dim: int):
        super().__init__()
        self.dims = (dim, context_dim)
        self.of_map = NormedHalving(dim, out_dim)
        self.of_context = NormedHalving(context_dim, context_dim)

    def forward(self, z: Tensor) -> Tensor:
        """(B, H, W, dim + context_dim) -> (B, ceil(H / 2), ceil(W / 2), out_dim + context_dim)."""
        x, context = z.split(self.dims, -1)
        return torch.cat([self.of_map(x), self.of_context(context)], -1)


def enlarged_overview(overview: Tensor, like: Tensor) -> Tensor:
    """An overview (B, H', W', D) at the height and width of the map `like`, by linear interpolation."""
    size = like.shape[1:3]
    return on_image(lambda i: F.interpolate(i, size=size, mode="bilinear", align_corners=False), overview)
