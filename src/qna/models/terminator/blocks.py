"""What Terminator is made of: blocks that gather ten views of a map, and what passes maps on between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core.errors import InvalidInput
from qna.mixers import HyperZZWLocal2d
from qna.mixers.hyperzzw.fast_kernel import FastKernel, check_map_size, one_tap
from qna.mixers.hyperzzw.slow_net import SlowNet
from qna.mixers.hyperzzw.whole_map import gate
from qna.models._parts.hierarchy import Stage
from qna.models._parts.recompute import recomputed
from qna.models._parts.scripting import NotScripted
from qna.models._parts.stem import check_image_channels
from qna.models.terminator.interaction import HyperChannelInteraction, HyperInteraction
from qna.models.terminator.variants import TerminatorVariant
from qna.parts.standardize import BatchStandardization, standardize_images

# of the standardisation after a bottleneck
GROUPS = 12
# maps that a bottleneck reads beside earlier blocks'
VIEWS = 10


class PixelStem(NotScripted, nn.Module):
    """The image as a map: nothing is computed."""

    reduction = 1

    def __init__(self, in_chans: int, size: Sequence[int]):
        super().__init__()
        self.in_chans = in_chans
        self.size = tuple(size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, H, W, C)."""
        check_image_channels(x, self.in_chans)
        check_map_size("Terminator", x.shape[2:], self.size)
        return x.permute(0, 2, 3, 1)


class GroupStandardization(nn.Module):
    """Twelve groups of channels: the even ones standardised over the batch, the odd ones image by image."""

    def __init__(self, dim: int, *, running_stats: bool):
        super().__init__()
        if dim % GROUPS:
            raise InvalidInput(f"dims must be multiples of {GROUPS}, by whose groups they go, got {dim}")
        self.over_batch = BatchStandardization(dim // 2, running_stats=running_stats)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        groups = image.unflatten(1, (GROUPS // 2, 2, -1))
        even, odd = (groups[:, :, i].flatten(1, 2) for i in range(2))
        both = [self.over_batch(even), standardize_images(odd)]
        # side by side again, in their order
        return torch.stack([t.unflatten(1, (GROUPS // 2, -1)) for t in both], 2).flatten(1, 3)


class SlowFastBlock(NotScripted, nn.Module):
    """A block of slow-fast neural encoding, on maps (B, H, W, C).

    With the gated map x' = x * W of the whole map's hyper-kernel, ``f = IS(gate(x) + gate'(x'))``, ``m =
    IS(mix(x))`` and ``h = IS(x * sigmoid(channel scores))``, the bottleneck reads ten views::

        f, x'f, x'm, x'h, SiLU(x'f), the interaction of x'f with x,
        local_0(h; x), local_1(x; h), local_2(x; m), local_3(m; x)

    each product that of a channel's matrices and each local branch told (map; context), and beside them
    earlier blocks' maps, their channels repeated to as many. Then come the groups' standardisation, GELU, a
    bias and dropout of channels. No path leads around any of it.

    Args:
        variant: what its slow nets are like.
        dim: channels of its input.
        out_dim: of its output.
        layers: of its slow net for the whole map.
        earlier: maps of earlier blocks.
        drop: rate of the dropout of channels.
    """

    def __init__(
        self, variant: TerminatorVariant, dim: int, out_dim: int, *, layers: int, earlier: int, drop: float
    ):
        super().__init__()
        size = (variant.image_size,) * 2
        self.dim, self.out_dim, self.earlier = dim, out_dim, earlier
        self.mix = one_tap(dim, dim, "relu")
        self.slow_net = SlowNet(size, dim, hidden=variant.hidden, layers=layers)
        self.fast_kernel = FastKernel(dim, size)
        self.channel_interaction = HyperChannelInteraction(dim, hidden=variant.channel_hidden)
        self.interaction = HyperInteraction(
            dim, size, hidden=variant.hidden, channel_hidden=variant.interact_hidden
        )
        self.local0, self.local1, self.local2, self.local3 = (
            HyperZZWLocal2d(
                dim,
                kernel_size=k,
                hidden=variant.local_hidden,
                batch_context=variant.batch_context,
                running_stats=variant.running_stats,
                # the author's; the standardisation after the bottleneck would take it away
                bias=False,
            )
            for k in variant.kernel_sizes
        )
        self.bottleneck = one_tap(dim * (VIEWS + earlier), out_dim, "relu")
        self.norm = GroupStandardization(out_dim, running_stats=variant.running_stats)
        self.bias = nn.Parameter(torch.zeros(1))
        self.drop = nn.Dropout2d(drop)

    def forward(self, x: Tensor, *earlier: Tensor) -> Tensor:
        """(B, H, W, dim) and earlier maps (B, H, W, C) -> (B, H, W, out_dim)."""
        if len(earlier) != self.earlier:
            raise InvalidInput(
                f"this block reads {self.earlier} maps of earlier blocks beside its own, got {len(earlier)}; "
                "call the network, or its stages as a whole"
            )
        image = x.permute(0, 3, 1, 2).contiguous()
        # side by side in one go: they are the largest map there is
        views = self._views(image)
        for t in earlier:
            views += repeats(t.permute(0, 3, 1, 2), self.dim)
        y = F.gelu(self.norm(self.bottleneck(torch.cat(views, 1))))
        return self.drop(y + self.bias).permute(0, 2, 3, 1)

    def _views(self, image: Tensor) -> list[Tensor]:
        """(B, C, H, W) -> ten of the same."""
        gated = gate(image, self.slow_net())
        fast = self.fast_kernel(image, gated)
        mixed = standardize_images(self.mix(image))
        weighed = standardize_images(self.channel_interaction(image))
        seen = torch.matmul(gated, fast)
        views = [fast, seen, torch.matmul(gated, mixed), torch.matmul(gated, weighed)]
        views += [F.silu(seen), self.interaction(seen, image)]
        x, m, h = (t.permute(0, 2, 3, 1) for t in (image, mixed, weighed))
        local = (self.local0(h, x), self.local1(x, h), self.local2(x, m), self.local3(m, x))
        return [*views, *(t.permute(0, 3, 1, 2) for t in local)]

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size` = (B, H, W, dim), all slow nets among them."""
        batch, height, width, dim = size
        n = math.prod(size)
        slow = self.slow_net, self.channel_interaction.scores.slow_net
        slow += self.interaction.scores.slow_net, self.interaction.slow_net
        total = sum(net.own_macs() for net in slow)
        total += self.fast_kernel.macs((batch, dim, height, width))
        total += sum(local.macs(size) for local in (self.local0, self.local1, self.local2, self.local3))
        # the linear map, three products of matrices, and the bottleneck
        return total + n * (dim + 3 * width + (VIEWS + self.earlier) * self.out_dim)

    def held(self, size: Sequence[int]) -> int:
        """Elements beside an input of `size` = (B, H, W, dim): the views, one by one and side by side."""
        n = math.prod(size)
        return n * (2 * VIEWS + self.earlier + 3) + math.prod(size[1:])


class LinkedStage(Stage):
    """A stage of one block that takes earlier maps as well."""

    def forward(self, input: Tensor, *earlier: Tensor) -> Tensor:
        """Through its block."""
        (block,) = self
        if self.grad_checkpointing and torch.is_grad_enabled():
            return recomputed(block, input, *earlier)
        return block(input, *earlier)


class LinkedStages(nn.Sequential):
    """Stages that are given the maps of earlier ones.

    Args:
        stages: in order.
        earlier: for each, which earlier ones' maps it is given.
    """

    def __init__(self, *stages: nn.Module, earlier: Sequence[Sequence[int]]):
        super().__init__(*stages)
        self.earlier = tuple(map(tuple, earlier))

    def forward(self, input: Tensor) -> Tensor:
        """(B, H, W, C) -> the map of the last stage."""
        return self.maps(input, len(self))[-1]

    def __getitem__(self, index: Any) -> Any:
        """A stage, or several: linked where they are the first, as maps before others would be missing."""
        if not isinstance(index, slice):
            return super().__getitem__(index)
        kept = range(len(self))[index]
        stages = [self[i] for i in kept]
        if kept != range(len(kept)):
            return nn.Sequential(*stages)
        return LinkedStages(*stages, earlier=self.earlier[: len(kept)])

    def maps(self, x: Tensor, count: int) -> list[Tensor]:
        """Of the first `count` stages."""
        maps: list[Tensor] = []
        for stage, places in list(zip(self, self.earlier, strict=False))[:count]:
            x = stage(x, *(maps[place] for place in places))
            maps.append(x)
        return maps


def repeats(image: Tensor, dim: int) -> list[Tensor]:
    """Of (B, C, H, W), what makes (B, dim, H, W) side by side: the channels again and again."""
    whole, part = divmod(dim, image.shape[1])
    return [image] * whole + [image[:, :part]] * (part > 0)


def repeated(image: Tensor, dim: int) -> Tensor:
    """(B, C, H, W) -> (B, dim, H, W): the channels again and again."""
    return torch.cat(repeats(image, dim), 1)
