"""A U-Net of volumes with switches: gates, dual attention, guiding, input pyramid, deep supervision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core import checks
from qna._core.with_losses import Supervised, WithLosses
from qna.mixers import ChannelAttention3d, PositionAttention3d
from qna.models._parts.recompute import recomputed
from qna.models.agunet.variants import AGUNetVariant
from qna.parts.attention_gate import KERAS_EPS, AttentionGate

# axes of so many voxels are not halved
SHORT = 4
_KERNEL = 3

Factors = tuple[int, int, int]


def halving(space: Sequence[int]) -> Factors:
    """By what each axis is divided: 2, and 1 where it is short already."""
    return tuple(1 if n <= SHORT else 2 for n in space)  # pyright: ignore[reportReturnType]


class Enlarge3d(nn.Module):
    """A transposed convolution of three taps whose factor is chosen in each call, an axis at a time.

    Of what comes out the first ``factor n`` voxels are kept as Keras keeps them with "same": nothing is cut
    off in front where the factor is above 1, and where it is above 3 there are voxels that only the bias
    reaches. (torch's `padding=1, output_padding=1` would shift the volume by one voxel against that.)

    Args:
        dim: channels of the input.
        out_dim: of the output.
    """

    def __init__(self, dim: int, out_dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, out_dim, *(_KERNEL,) * 3))
        self.bias = nn.Parameter(torch.zeros(out_dim))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor, factors: Sequence[int], space: Sequence[int]) -> Tensor:
        """(B, dim, D, H, W) -> (B, out_dim, *space), with space at most factors times as large."""
        more = [max(0, f - _KERNEL) for f in factors]
        y = F.conv_transpose3d(x, self.weight, self.bias, stride=list(factors), output_padding=more)
        for axis, (factor, n) in enumerate(zip(factors, space, strict=True), start=2):
            y = y.narrow(axis, max(0, _KERNEL - factor) // 2, n)
        return y

    def extra_repr(self) -> str:
        """The channels."""
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}"


def _norm(dim: int) -> nn.BatchNorm3d:
    return nn.BatchNorm3d(dim, eps=KERAS_EPS)


class ConvolutionBlock(nn.Sequential):
    """Twice: convolution of 3 x 3 x 3, batch norm, ReLU, and dropout of whole channels where there is any."""

    def __init__(self, dim: int, out_dim: int, dropout: float = 0.0):
        layers: list[nn.Module] = []
        for channels in (dim, out_dim):
            layers += [nn.Conv3d(channels, out_dim, 3, padding=1), _norm(out_dim), nn.ReLU()]
            layers += [nn.Dropout3d(dropout)] if dropout else []
        super().__init__(*layers)


class DualAttention3d(nn.Module):
    """DAUNet's bottleneck: attention of positions and of channels side by side, each convolved, summed.

    Each branch is ``conv3(Dropout(ReLU(BN(conv3(attention(x))))))``; their sum goes through dropout of whole
    channels, a convolution of one tap and a norm.

    Args:
        dim: channels.
        dropout: of each branch and of the sum.
    """

    def __init__(self, dim: int, dropout: float):
        super().__init__()
        positions = PositionAttention3d(dim, bias=False)
        channels = ChannelAttention3d(dim, weigh="similar", sources="rows")
        self.attentions = nn.ModuleList([positions, channels])
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv3d(dim, dim, 3, padding=1),
                _norm(dim),
                nn.ReLU(),
                nn.Dropout3d(dropout),
                nn.Conv3d(dim, dim, 3, padding=1),
            )
            for _ in self.attentions
        )
        self.join = nn.Sequential(nn.Dropout3d(dropout), nn.Conv3d(dim, dim, 1), _norm(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, D, H, W) -> the same."""
        rows = x.movedim(1, -1)
        summed = 0
        for attention, branch in zip(self.attentions, self.branches, strict=True):
            summed = summed + branch(attention(rows).movedim(-1, 1))
        return self.join(summed)


class Descent(nn.Module):
    """One level of the encoder.

    Args:
        dim: channels of the map that comes.
        out_dim: of the map that goes on.
        in_chans: of the volume, where a smaller copy of it is read in front of the block; 0 for none.
        dropout: of the block.
    """

    def __init__(self, dim: int, out_dim: int, *, in_chans: int = 0, dropout: float = 0.0):
        super().__init__()
        self.pyramid = (
            nn.Sequential(nn.Conv3d(in_chans, out_dim, 3, padding=1), nn.ReLU()) if in_chans else None
        )
        self.block = ConvolutionBlock(dim + (out_dim if in_chans else 0), out_dim, dropout)

    def forward(self, x: Tensor, smaller: Tensor) -> Tensor:
        """(B, dim, D, H, W) and the volume at this size -> (B, out_dim, D, H, W)."""
        return self.block(x if self.pyramid is None else torch.cat((self.pyramid(smaller), x), 1))


class GatedAscent(nn.Module):
    """One level of the decoder: enlarge, gate the skip, join, convolve.

    Args:
        dim: channels of the map that comes.
        out_dim: of the map that goes on, and of the skip.
        guide_dim: of the bottleneck's map where that guides; 0 where it does not.
        variant: its switches.
    """

    def __init__(self, dim: int, out_dim: int, guide_dim: int, variant: AGUNetVariant):
        super().__init__()
        self.up = Enlarge3d(dim, out_dim)
        self.guide = Enlarge3d(guide_dim, out_dim) if guide_dim else None
        joined = out_dim * (3 if guide_dim else 2)
        self.joined_norm = variant.joined_norm
        self.norm = _norm(joined if variant.joined_norm else out_dim)
        self.gate = None if variant.gate == "none" else AttentionGate(3, out_dim, join=variant.gate)
        self.block = ConvolutionBlock(joined, out_dim, variant.dropout)

    def forward(
        self, x: Tensor, skip: Tensor, bottom: Tensor, factors: Sequence[int], all_factors: Sequence[int]
    ) -> Tensor:
        """Bring x to the skip's size and join them.

        Args:
            x: (B, dim, d, h, w).
            skip: (B, out_dim, D, H, W).
            bottom: the bottleneck's map, (B, guide_dim, ...).
            factors: from x to the skip.
            all_factors: from the bottleneck's map to it.

        Returns:
            (B, out_dim, D, H, W).
        """
        space = skip.shape[2:]
        up = self.up(x, factors, space)
        if not self.joined_norm:
            up = F.relu(self.norm(up))
        skip = skip if self.gate is None else self.gate(skip, up)
        guide = [] if self.guide is None else [self.guide(bottom, all_factors, space)]
        joined = torch.cat((*guide, skip, up), 1)
        if self.joined_norm:
            joined = F.relu(self.norm(joined))
        return self.block(joined)


class AGUNet(nn.Module):
    """A 3-D U-Net with the switches of AGUNet, DAUNet and DAGUNet (Bouget et al., Front. Radiol. 2021).

    An encoder of blocks of two convolutions halves the volume between levels, a decoder doubles it and joins
    the encoder's map of its size. With all switches off that is all. Each switch can be thrown alone:

    - `gate`: what the encoder passes on goes through an `AttentionGate` (AGUNet).
    - `dual`: attention of positions and channels at the bottleneck (DAUNet).
    - `guided`: the bottleneck's map is enlarged to every level of the decoder and joined there (DAGUNet).
    - `multi_scale`: the volume, averaged down, is read at every level of the encoder.
    - `deep_supervision`: in training every level of the decoder gives logits of its size, each with a loss of
      weight 1: `WithLosses`.
    - `joined_norm`: norm and ReLU come behind the joining of both maps, as in DAUNet, not before it.

    Volumes (B, in_chans, D, H, W) of any size. An axis of up to 4 voxels is not halved any more, and not
    doubled on the way back (as released, the authors' nets always double it and cannot be built for such
    volumes). Where an axis is odd its half is rounded up, and cut on the way back.

    Memory of position attention: `PositionAttention`, linear in voxels.

    Args:
        variant: channels and switches.
        in_chans: channels of the volume.
        num_classes: logits per voxel.

    Raises:
        InvalidInput: a size is not positive.
    """

    def __init__(self, variant: AGUNetVariant, *, in_chans: int = 1, num_classes: int = 2):
        super().__init__()
        checks.positive("AGUNet", in_chans=in_chans, num_classes=num_classes)
        self.variant, self.in_chans, self.num_classes = variant, in_chans, num_classes
        v, dims = variant, variant.channels
        self.descents = nn.ModuleList(
            Descent(
                in_chans if level == 0 else dims[level - 1],
                dim,
                in_chans=in_chans if v.multi_scale and level else 0,
                dropout=v.dropout,
            )
            for level, dim in enumerate(dims[:-1])
        )
        self.bottleneck = ConvolutionBlock(dims[-2], dims[-1], v.dropout)
        self.dual = DualAttention3d(dims[-1], v.attention_dropout) if v.dual else None
        # coarsest first, as they are called
        self.ascents = nn.ModuleList(
            GatedAscent(dim, out_dim, dims[-1] if v.guided else 0, v)
            for dim, out_dim in zip(dims[:0:-1], dims[-2::-1], strict=True)
        )
        headed = dims[-2::-1] if v.deep_supervision else dims[:1]
        self.heads = nn.ModuleList(nn.Conv3d(dim, num_classes, 1) for dim in headed)
        self.grad_checkpointing = False
        for layer in self.modules():
            if isinstance(layer, nn.Conv3d):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor) -> Tensor | WithLosses:
        """(B, in_chans, D, H, W) -> logits (B, num_classes, D, H, W).

        In training with deep supervision `WithLosses`, in which the logits of coarser levels are supervised.
        """
        checks.channels_first_volume("AGUNet", x, self.in_chans)
        smaller = x
        skips: list[Tensor] = []
        factors: list[Factors] = []
        for descent in self.descents:
            skips.append(self._run(descent, x, smaller))
            factors.append(halving(x.shape[2:]))
            x = F.max_pool3d(skips[-1], factors[-1], ceil_mode=True)
            if self.variant.multi_scale:
                # of what is there alone, where a half is rounded up
                smaller = F.avg_pool3d(smaller, factors[-1], ceil_mode=True)
        x = self._run(self.bottleneck, x)
        x = bottom = x if self.dual is None else self._run(self.dual, x)
        logits: list[Tensor] = []
        so_far: Sequence[int] = (1, 1, 1)
        for level, ascent in enumerate(self.ascents):
            step = factors[-1 - level]
            so_far = tuple(math.prod(pair) for pair in zip(so_far, step, strict=True))
            x = self._run(ascent, x, skips[-1 - level], bottom, step, so_far)
            if self.training and self.variant.deep_supervision:
                logits.append(self.heads[level](x))
        finest = logits.pop() if logits else self.heads[-1](x)
        if not logits:
            return finest
        coarser = {f"level{n}": Supervised(y, 1.0) for n, y in enumerate(reversed(logits), start=1)}
        return WithLosses(finest, {}, coarser)

    def _run(self, part: nn.Module, *given: Any) -> Tensor:
        return recomputed(part, *given) if self.grad_checkpointing and self.training else part(*given)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep only the inputs of levels for the backward pass, which computes the rest again."""
        self.grad_checkpointing = enable
