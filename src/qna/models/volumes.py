"""Networks that give every voxel a class, and how whole volumes go through them window by window."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from qna._core.errors import InvalidInput, check_choice, require
from qna._core.with_losses import WithLosses
from qna.models import agunet
from qna.models.bounds import bounded_building, check_arguments

# every family by its name: this list is all that a new one is added to
VOLUME_FAMILIES = {family.name: family for family in (agunet.UNET_FAMILY, agunet.AGUNET_FAMILY)}
# size by name -> its family
VOLUME_NETWORKS = {name: family for family in VOLUME_FAMILIES.values() for name in family.variants}


def create_volume_network(
    name: str, *, in_chans: int = 1, num_classes: int = 2, **arguments: Any
) -> nn.Module:
    """Make a network (B, in_chans, D, H, W) -> logits (B, num_classes, D, H, W).

    Args:
        name: of a size: "agunet_nano".
        in_chans: channels of the volume.
        num_classes: logits per voxel.
        arguments: fields of the family's variant that are to be others, gate="added" for example.

    Raises:
        UnknownName: for a size or argument that there is not, with the nearest names.
        InvalidInput: values that are refused.
    """
    family = VOLUME_NETWORKS[check_choice("network of volumes", name, VOLUME_NETWORKS)]
    check_arguments(name, arguments)
    with bounded_building():
        variant = family.variants[name].varied(name, arguments)
        return family.network(variant, in_chans=in_chans, num_classes=num_classes)


class SlidingWindows(nn.Module):
    """A network of volumes that in evaluation sees windows, which overlap, in the place of a whole volume.

    In training volumes are patches already and go through as they are. In evaluation the logits of a voxel
    are a mean over the windows that hold it, those in whose middle it lies weighing most (MONAI's
    `sliding_window_inference` with Gaussian weights); a volume no larger than a window goes through whole. At
    any time one window is in the network, so beside it there are the volume and its logits twice.

    Args:
        network: (B, C, D, H, W) -> logits of the same size.
        window: voxels per axis.
        overlap: part of a window by which it overlaps the next, in [0, 1).
    """

    def __init__(self, network: nn.Module, window: Sequence[int], overlap: float = 0.25):
        super().__init__()
        if not 0 <= overlap < 1:
            raise InvalidInput(f"overlap must be in [0, 1), got {overlap}")
        self.network = network
        self.window: tuple[int, ...] = tuple(window)
        self.overlap = overlap
        self.told: Callable[[int], object] | None = None

    def forward(self, x: Tensor) -> Tensor | WithLosses:
        """(B, C, D, H, W) -> logits (B, classes, D, H, W)."""
        window = self.seen_at_once(x.shape[2:])
        if self.training or tuple(x.shape[2:]) == window:
            return self._seen(x)
        inferers = require("monai.inferers", extra="volumes", purpose="windows over volumes")
        return inferers.sliding_window_inference(
            x, window, sw_batch_size=1, predictor=self._seen, overlap=self.overlap, mode="gaussian"
        )

    def _seen(self, x: Tensor) -> Tensor | WithLosses:
        logits = self.network(x)
        if self.told is not None:
            self.told(1)
        return logits

    def seen_at_once(self, space: Sequence[int]) -> tuple[int, ...]:
        """The window over a volume of this size: no longer than it along any axis."""
        return tuple(min(w, n) for w, n in zip(self.window, space, strict=True))

    def windows(self, space: Sequence[int]) -> int:
        """How many windows see a volume of this size."""
        counts = []
        for n, w in zip(space, self.seen_at_once(space), strict=True):
            step = w if w == n else max(1, int(w * (1 - self.overlap)))
            counts.append(1 + math.ceil((n - w) / step))
        return math.prod(counts)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Let the network keep only its blocks' inputs for the backward pass.

        Raises:
            InvalidInput: if it cannot.
        """
        if not hasattr(self.network, "set_grad_checkpointing"):
            raise InvalidInput(f"{type(self.network).__name__} has no gradient checkpointing")
        self.network.set_grad_checkpointing(enable)  # type: ignore[operator]

    def extra_repr(self) -> str:
        """The arguments that the printed network does not show."""
        return f"window={self.window}, overlap={self.overlap}"
