"""HyperZZW over the whole map: what a position weighs is a function of where it is and of what is there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from qna._core import checks
from qna._core.about import About
from qna._core.errors import InvalidInput, check_choice
from qna.mixers.hyperzzw.fast_kernel import FastKernel, check_map_size
from qna.mixers.hyperzzw.slow_net import SlowNet
from qna.mixers.row import Example, MixerRow, Traits

Form = Literal["matmul", "elementwise"]


class HyperZZWGlobal2d(nn.Module):
    """The global HyperZZW operator, for maps of one size.

    A slow net, which sees positions and no image, makes a hyper-kernel W of the map's size for each channel.
    Multiplied with the map it becomes weights that depend on what is seen, ``x' = x * W``, and these meet the
    map again::

        matmul:       y_c = x'_c f_c         f = IS(gate(x) + gate'(x')), see `FastKernel`
        elementwise:  y   = x' * x

    The first is a product of matrices: row i of channel c of the weights times column j of channel c of f, so
    that a position sees its row of weights and its column of f, and as many rows as columns are needed. With
    n = H W positions and C channels it costs ``n C (8 C + H)`` multiply-adds for an image, and the slow net's
    ``n h (L h + C + 2 L + 2)`` for any number of images, nothing once `fuse` has stored its kernel.

    Args:
        dim: channels of input and output.
        map_size: one number or (height, width).
        form: of the second product.
        hidden: h, channels of the slow net's layers.
        layers: L.
        deploy: begin with a stored hyper-kernel.

    Raises:
        InvalidInput: a size is not positive, or not square where matrices are multiplied; in a call, a map of
            another size.
    """

    def __init__(
        self,
        dim: int,
        *,
        map_size: int | Sequence[int] = 32,
        form: Form = "matmul",
        hidden: int = 64,
        layers: int = 2,
        deploy: bool = False,
    ):
        super().__init__()
        owner = type(self).__name__
        checks.positive(owner, dim=dim)
        check_choice("form", form, ("matmul", "elementwise"))
        self.dim = self.out_dim = dim
        self.map_size = checks.per_axis("map_size", map_size, 2, minimum=1)
        self.form = form
        if form == "matmul" and self.map_size[0] != self.map_size[1]:
            raise InvalidInput(
                f"{owner}: a product of matrices needs maps with H = W, got map_size={self.map_size}; "
                "form='elementwise' takes any"
            )
        self.slow_net = SlowNet(self.map_size, dim, hidden=hidden, layers=layers, deploy=deploy)
        self.fast_kernel = FastKernel(dim, self.map_size) if form == "matmul" else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> the same."""
        checks.channels_last_map(type(self).__name__, x, self.dim, 2)
        check_map_size(type(self).__name__, x.shape[1:3], self.map_size)
        image = x.permute(0, 3, 1, 2).contiguous()
        gated = gate(image, self.slow_net())
        y = gated * image
        if self.fast_kernel is not None:
            y = torch.matmul(gated, self.fast_kernel(image, gated))
        return y.permute(0, 2, 3, 1)

    def fuse(self) -> HyperZZWGlobal2d:
        """Store the hyper-kernel, which no image changes; what comes out stays the same bit for bit."""
        self.slow_net.fuse()
        return self

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size` = (B, H, W, dim), the slow net's among them until it is fused."""
        n = math.prod(size)
        # of one element the two products, or its row and column beside what makes f
        each = 2 if self.fast_kernel is None else 8 * self.dim + size[2]
        return n * each + self.slow_net.own_macs()

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: the map as images, the gated one, and in the gates four more.

        Beside them the hyper-kernel.
        """
        return math.prod(size) * (3 if self.fast_kernel is None else 6) + math.prod(size[1:])

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        return f"{self.dim}, map_size={self.map_size}, form={self.form!r}"


def gate(image: Tensor, kernel: Tensor) -> Tensor:
    """The map times the hyper-kernel, in the map's dtype: under autocast the kernel is of a larger one."""
    return image * kernel.to(image.dtype)


ABOUT = About(
    title="HyperZ.Z.W Operator Connects Slow-Fast Networks for Full Context Interaction",
    authors="Zhang",
    venue="arXiv 2024",
    arxiv="2401.17948",
    read="the abstract; versions of the author's code before it was withdrawn (hyperevolnet/Terminator, of "
    "July 2024, without a licence), as a black box beside this one",
    differs="written anew from equations; alphas and betas of the renormalisation are parameters, where the "
    "author's lists are neither trained nor saved; the output map of a slow net begins with the scale that "
    "the author's first call gives it; hyper-kernels can be stored",
    status="after",
)

ROW = MixerRow(
    HyperZZWGlobal2d,
    ABOUT,
    Example((6, 6), {"map_size": 6}),
    Traits(2, any_size=False),
    {"compiles_with_inductor_and_dynamic_sizes": "its maps are of one size"},
)
