"""The stages of OverLoCK that hold its overview: the third makes it, and the last two read it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna.models._parts.checkpointing import checkpointed
from qna.models._parts.hierarchy import Stage
from qna.models._parts.scripting import NotScripted
from qna.models._parts.stem import check_images
from qna.models.overlock.blocks import enlarged_overview
from qna.parts.image_view import every_nth, on_image
from qna.parts.linear import apply_linear


class ConvolutionStem(NotScripted, nn.Module):
    """Four convolutions of 3 x 3, of which the first and the third have stride 2, each with a batch norm.

    Half of `dim` channels up to the second; a GELU between all of them, and none at the end.
    """

    reduction = 4

    def __init__(self, in_chans: int, dim: int):
        super().__init__()
        widths = (in_chans, dim // 2, dim // 2, dim, dim)
        for i, stride in enumerate((2, 1, 2, 1)):
            conv = nn.Conv2d(widths[i], widths[i + 1], 3, stride=stride, padding=1, bias=False)
            self.add_module(f"conv{i + 1}", conv)
            self.add_module(f"norm{i + 1}", nn.BatchNorm2d(widths[i + 1]))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, ceil(ceil(H / 2) / 2), ceil(ceil(W / 2) / 2), dim)."""
        check_images(x, self.get_submodule("conv1"))  # type: ignore[arg-type]
        for i in range(1, 5):
            x = self.get_submodule(f"norm{i}")(self.get_submodule(f"conv{i}")(x))
            if i < 4:
                x = F.gelu(x)
        return x.permute(0, 2, 3, 1).contiguous()


class OverviewStage(Stage):
    """The third stage: the base network's last blocks, an overview of what they give, a first focus on it.

    Args:
        base: what halves the map, and blocks.
        overview: what halves what `base` gives, blocks, and a linear map to D channels.
        focus: blocks `DynamicBlock` of C and D channels.
    """

    def __init__(self, base: Sequence[nn.Module], overview: Sequence[nn.Module], focus: Sequence[nn.Module]):
        super().__init__(*base, *overview, *focus)
        self.ends = (len(base), len(base) + len(overview))

    def forward(self, input: Tensor) -> Tensor:
        """(B, H, W, C') -> (B, ceil(H / 2), ceil(W / 2), C + 2 D).

        The map, its context, and the overview for the stage that follows, each of whose positions stands
        there four times: it has half the height and width.
        """
        return self.seen(input)[0]

    def seen(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` gives, and the overview before its linear map, (B, ceil(H / 4), ceil(W / 4), E)."""
        base, overview = self.ends
        x = self._through(0, base, input)
        whole = self._through(base, overview - 1, x)
        small = apply_linear(self[overview - 1], whole)
        large = enlarged_overview(small, x)
        z = self._through(overview, len(self), torch.cat([x, large], -1), large)
        repeated = small.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, : x.shape[1], : x.shape[2]]
        return torch.cat([z, repeated], -1), whole

    def _through(self, first: int, end: int, x: Tensor, *overview: Tensor) -> Tensor:
        for block in list(self)[first:end]:
            if self.grad_checkpointing and torch.is_grad_enabled():
                x = checkpointed(block, x, *overview)
            else:
                x = block(x, *overview)
        return x


class FocusStage(Stage):
    """The last stage: what halves map and context, and blocks `DynamicBlock` that read the small overview.

    Args:
        halving: of the map and its context.
        focus: the blocks.
        context_dim: channels D of context and overview.
    """

    def __init__(self, halving: nn.Module, focus: Sequence[nn.Module], context_dim: int):
        super().__init__(halving, *focus)
        self.context_dim = context_dim

    def forward(self, input: Tensor) -> Tensor:
        """(B, H, W, C' + 2 D) -> (B, ceil(H / 2), ceil(W / 2), C + D), map and context."""
        z, repeated = input.split([input.shape[-1] - self.context_dim, self.context_dim], -1)
        overview = every_nth(repeated, 2)
        halving, *focus = self
        z = halving(z)
        for block in focus:
            if self.grad_checkpointing and torch.is_grad_enabled():
                z = checkpointed(block, z, overview)
            else:
                z = block(z, overview)
        return z  # type: ignore[return-value]


class ProjectedNorm(nn.Module):
    """What follows the last stage: a linear map without bias, batch norm and SiLU."""

    def __init__(self, dim: int, out_dim: int):
        super().__init__()
        self.linear = nn.Linear(dim, out_dim, bias=False)
        self.norm = nn.BatchNorm2d(out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, H, W, out_dim)."""
        return F.silu(on_image(self.norm, apply_linear(self.linear, x)))


class AuxiliaryHead(nn.Module):
    """Logits of the overview alone, in training: batch norm, the mean over the map, a linear map."""

    def __init__(self, dim: int, num_classes: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(dim)
        self.fc = nn.Linear(dim, num_classes)

    def forward(self, overview: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, num_classes)."""
        return self.fc(on_image(self.norm, overview).mean((1, 2)))
