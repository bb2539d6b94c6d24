"""HyperZZW in windows: a depthwise convolution whose kernels follow from positions and from what is seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core import checks
from qna._core.errors import InvalidInput
from qna.mixers.hyperzzw.fast_kernel import one_tap
from qna.mixers.hyperzzw.slow_net import ContextSlowNet
from qna.mixers.hyperzzw.whole_map import ABOUT
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.open_size import is_open
from qna.parts.standardize import BatchStandardization


class HyperZZWLocal2d(nn.Module):
    """The local HyperZZW operator, on maps of any height and width.

    A slow net makes a kernel of k x k taps for each channel out of the taps' positions and of a context
    (`ContextSlowNet`), and with it::

        y = GELU(BS(mix(depthwise convolution of x with W(context)))) + b

    where `mix` is linear and BS standardises each channel over the batch. Zeros lie outside the map. With n
    positions and C channels it costs ``n C (k^2 + C)`` multiply-adds, and the slow net's, some ``k^2 h C``.

    As published an image's answer depends on the other images of its batch, twice, and in evaluation too: the
    context is a mean over the batch, and so is BS. ``batch_context=False`` gives each image a kernel of its
    own and ``running_stats=True`` takes BS's statistics from training; with both, an image in evaluation
    depends on itself alone.

    Args:
        dim: channels of input and output.
        kernel_size: k, odd.
        hidden: h, channels of the slow net's layers.
        layers: of the slow net.
        batch_context: one kernel for the batch, as published, or one per image.
        running_stats: standardise in evaluation by running statistics, or by the batch, as published.
        bias: b, one number.
        deploy: begin with stored sines in the slow net.

    Raises:
        InvalidInput: a size is not positive, or the kernel's not odd; in a call, a context of other channels
            or, where every image has its own, of other images.
    """

    def __init__(
        self,
        dim: int,
        *,
        kernel_size: int = 7,
        hidden: int = 32,
        layers: int = 2,
        batch_context: bool = True,
        running_stats: bool = False,
        bias: bool = True,
        deploy: bool = False,
    ):
        super().__init__()
        owner = type(self).__name__
        checks.positive(owner, dim=dim, kernel_size=kernel_size)
        if not kernel_size % 2:
            raise InvalidInput(f"{owner}: kernel_size must be odd, got {kernel_size}")
        self.dim = self.out_dim = dim
        self.kernel_size = kernel_size
        self.slow_net = ContextSlowNet(
            kernel_size, dim, hidden=hidden, layers=layers, batch_context=batch_context, deploy=deploy
        )
        self.mix = one_tap(dim, dim, "relu")
        self.norm = BatchStandardization(dim, running_stats=running_stats)
        self.bias = nn.Parameter(torch.zeros(1)) if bias else None

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(B, H, W, dim) -> the same; the kernels follow from `context`, a map of any size, or x itself."""
        checks.channels_last_map(type(self).__name__, x, self.dim, 2)
        if context is not None:
            self._check_context(context, x)
        image = x.permute(0, 3, 1, 2).contiguous()
        kernels = self.slow_net(image if context is None else context.permute(0, 3, 1, 2))
        y = self._convolved(image, kernels.to(image.dtype))
        y = F.gelu(self.norm(self.mix(y)))
        return (y if self.bias is None else y + self.bias).permute(0, 2, 3, 1)

    def _check_context(self, context: Tensor, x: Tensor) -> None:
        owner = type(self).__name__
        checks.channels_last_map(f"{owner}'s context", context, self.dim, 2)
        batch = context.shape[0]
        if not self.slow_net.batch_context and not is_open(batch) and batch != x.shape[0]:
            raise InvalidInput(f"{owner} must get a context for each of {x.shape[0]} images, got {batch}")

    def _convolved(self, image: Tensor, kernels: Tensor) -> Tensor:
        padding = self.kernel_size // 2
        if self.slow_net.batch_context:
            return F.conv2d(image, kernels.transpose(0, 1), padding=padding, groups=self.dim)
        if not is_open(image.shape[0]) and not image.shape[0]:
            # a convolution in no group is refused
            return image * kernels.sum()
        # a batch of kernels: the images of the batch side by side as channels of one
        together, taps = image.flatten(0, 1)[None], kernels.flatten(0, 1)[:, None]
        return F.conv2d(together, taps, padding=padding, groups=together.shape[1]).view_as(image)

    def fuse(self) -> HyperZZWLocal2d:
        """Store the slow net's sines, which no image changes; what comes out stays the same bit for bit."""
        self.slow_net.fuse()
        return self

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size` = (B, H, W, dim), the slow net's among them."""
        return math.prod(size) * (self.kernel_size**2 + self.dim) + self.slow_net.own_macs(size[0])

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: the map as images, two more in the layers after; and the kernels.

        Of these one set, or one for each image.
        """
        kernels = 1 if self.slow_net.batch_context else size[0]
        return 3 * math.prod(size) + kernels * self.dim * self.kernel_size**2

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        return f"{self.dim}, kernel_size={self.kernel_size}, batch_context={self.slow_net.batch_context}"


ROW = MixerRow(
    HyperZZWLocal2d,
    replace(
        ABOUT,
        differs=f"{ABOUT.differs}; a context and statistics of each image by itself are options of ours",
    ),
    Example((5, 7), {"kernel_size": 3}),
    Traits(2, batch_coupled=True),
)
