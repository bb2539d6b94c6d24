"""The effective receptive field: how much each pixel moves the centre of a network's last map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qna._core.errors import InvalidInput, check_choice
from qna._core.seeds import derive_seed


@dataclass(frozen=True)
class ReceptiveField:
    """Sensitivity of one position of the last map.

    Attributes:
        strength: float32 (H, W) over the input's pixels: root mean square of the derivative, at most 1.
        centre: (row, column) in pixels of the position's place, which may lie between pixels.
        map_size: (H, W) of the last map.
    """

    strength: Tensor
    centre: tuple[float, float]
    map_size: tuple[int, int]

    def side(self, share: float) -> int:
        """Side in pixels of the smallest square around the centre with `share` of the sum of all strengths.

        A square that would reach beyond an edge is moved inwards, so that none is larger than the image; of
        the shorter side of an image that is not square, it has all at most.
        """
        sizes = zip(self.centre, self.strength.shape, strict=True)
        rows, columns = (_sides(centre, length) for centre, length in sizes)
        needed = torch.maximum(rows[:, None], columns[None, :]).flatten()
        order = needed.argsort()
        total = self.strength.double().flatten()[order].cumsum(0)
        place = int((total < share * total[-1]).sum())
        return round(float(needed[order][min(place, len(order) - 1)]))


def _sides(centre: float, length: int) -> Tensor:
    """Of each pixel, the shortest interval around `centre`, moved into [0, length], that holds it."""
    first = torch.arange(length, dtype=torch.float64)
    # an interval reaches a pixel's far edge by growing, or by being pushed there from the other end
    from_below = torch.minimum(2 * (centre - first), length - first)
    to_above = torch.minimum(2 * (first + 1 - centre), first + 1)
    return torch.maximum(from_below, to_above)


def receptive_field(network: nn.Module, images: Tensor, *, draws: int = 8, seed: int = 0) -> ReceptiveField:
    """The effective receptive field at the centre of the last map (Luo et al., NeurIPS 2016).

    The paper differentiates one unit of the output by all pixels and averages over inputs. A position of a
    map has many channels, and their plain sum is a constant after a layer norm. So each draw sums them with
    random signs: the mean of the squared derivatives is then, in expectation, the sum over channels of their
    squares. The last map is taken before a final norm, where the network can tell.

    Args:
        network: (B, C, H, W) -> anything, with `forward_intermediates` or `forward_features` as timm has
            them, or itself giving a map (B, C, H', W'). Put in evaluation mode, and back afterwards.
        images: (B, C, H, W), noise or photographs, averaged over.
        draws: of signs, for each image.
        seed: of the signs.

    Raises:
        InvalidInput: if the network gives no map, or `draws` is not positive.
    """
    if draws < 1:
        raise InvalidInput(f"draws must be at least 1, got {draws}")
    generator = torch.Generator().manual_seed(derive_seed(seed, "receptive field"))
    training = network.training
    network.eval()
    kept = [p.requires_grad for p in network.parameters()]
    network.requires_grad_(False)  # the weights' gradients are not asked for
    try:
        with torch.enable_grad():
            inputs = images.detach().clone().requires_grad_()
            last = last_map(network, inputs)
            height, width = last.shape[2:]
            centre = last[:, :, height // 2, width // 2]
            total = torch.zeros(images.shape[2:], dtype=torch.float64)
            for draw in range(draws):
                signs = torch.randint(0, 2, centre.shape, generator=generator) * 2 - 1
                (gradient,) = torch.autograd.grad(
                    (centre * signs.to(centre)).sum(), inputs, retain_graph=draw < draws - 1
                )
                total += gradient.float().cpu().double().square().sum((0, 1))
    finally:
        network.train(training)
        for parameter, wanted in zip(network.parameters(), kept, strict=True):
            parameter.requires_grad_(wanted)
    strength = total.sqrt()
    strength = (strength / strength.max().clamp_min(torch.finfo(torch.float64).tiny)).float()
    at = ((height // 2 + 0.5) * images.shape[2] / height, (width // 2 + 0.5) * images.shape[3] / width)
    return ReceptiveField(strength, at, (height, width))


def last_map(network: Any, images: Tensor) -> Tensor:
    """The last map (B, C', H', W') that `network` makes of `images`, before a final norm if it can tell.

    Raises:
        InvalidInput: if it makes none.
    """
    if hasattr(network, "forward_intermediates"):
        found = network.forward_intermediates(
            images, indices=1, norm=False, output_fmt="NCHW", intermediates_only=True
        )[-1]
    elif hasattr(network, "forward_features"):
        found = network.forward_features(images)
        layout = check_choice("output_fmt", str(getattr(network, "output_fmt", "NCHW")), ("NCHW", "NHWC"))
        if layout == "NHWC" and found.ndim == 4:
            found = found.permute(0, 3, 1, 2)
    else:
        found = network(images)
    if not isinstance(found, Tensor) or found.ndim != 4:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise InvalidInput(f"{type(network).__name__} gives no map of positions, got {shape}")
    return found
