"""Images made worse in known ways and degrees, to see how much of a network's accuracy is left.

The idea is Hendrycks and Dietterich's ("Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", ICLR 2019, arXiv 1903.12261). Kinds, levels and procedure here are ours, so that figures are
not those of ImageNet-C or CIFAR-10-C: an image is corrupted at the size that the network reads, before it is
standardised, and rounded to 8 bits as a stored image is.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from qna._core.errors import InvalidInput, check_choice
from qna._core.seeds import derive_seed

SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Corruption:
    """A kind of damage in five degrees.

    Attributes:
        name: what it is called.
        unit: what a level is, in words.
        levels: one per severity, 1 to 5.
        apply: (pixels (B, C, H, W) in [0, 1], level, positions in the data set) -> damaged pixels.
    """

    name: str
    unit: str
    levels: tuple[float, ...]
    apply: Callable[[torch.Tensor, float, Sequence[int]], torch.Tensor] = field(repr=False)

    def __call__(self, pixels: torch.Tensor, severity: int, indices: Sequence[int]) -> torch.Tensor:
        """Damage images.

        Args:
            pixels: float (B, C, H, W) in [0, 1].
            severity: 1 to 5.
            indices: position of each image in its data set. All draws follow from it and the kind alone: two
                networks that read one size see the same pixels, and severities differ in strength only.

        Returns:
            float (B, C, H, W), multiples of 1/255 in [0, 1].
        """
        if severity not in SEVERITIES:
            raise InvalidInput(f"severity must be one of {', '.join(map(str, SEVERITIES))}, got {severity}")
        damaged = self.apply(pixels, self.levels[severity - 1], indices)
        return damaged.clamp(0, 1).mul(255).round().div(255)


def add_noise(pixels: torch.Tensor, level: float, indices: Sequence[int]) -> torch.Tensor:
    """Add independent normal noise of standard deviation `level` to every value."""
    shape = pixels.shape[1:]
    noise = [
        torch.randn(shape, generator=torch.Generator().manual_seed(derive_seed("noise", int(index))))
        for index in indices
    ]
    return pixels + level * torch.stack(noise).to(pixels)


def blur(pixels: torch.Tensor, level: float, indices: Sequence[int]) -> torch.Tensor:
    """Convolve with a Gaussian whose standard deviation is `level` sides of the image; edges are repeated."""
    sigma = level * pixels.shape[-1]
    reach = max(1, math.ceil(4 * sigma))
    x = torch.arange(-reach, reach + 1, dtype=pixels.dtype, device=pixels.device)
    kernel = (-x.square() / (2 * sigma**2)).exp()
    kernel = kernel / kernel.sum()
    channels = pixels.shape[1]
    padded = F.pad(pixels, (reach,) * 4, mode="replicate")
    across = F.conv2d(padded, kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    return F.conv2d(across, kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)


def brighten(pixels: torch.Tensor, level: float, indices: Sequence[int]) -> torch.Tensor:
    """Add `level` to every value; what exceeds white is lost."""
    return pixels + level


def compress(pixels: torch.Tensor, level: float, indices: Sequence[int]) -> torch.Tensor:
    """Write and read as JPEG of quality `level` (libjpeg's scale, by Pillow), with its usual subsampling."""
    import numpy as np
    from PIL import Image

    done = []
    for image in pixels.mul(255).round().byte().movedim(1, -1).cpu().numpy():
        stored = io.BytesIO()
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(
            stored, "JPEG", quality=int(level)
        )
        read = np.array(Image.open(stored)).reshape(image.shape)
        done.append(torch.from_numpy(read).movedim(-1, 0))
    return torch.stack(done).to(pixels) / 255


CORRUPTIONS = {
    c.name: c
    for c in (
        Corruption("noise", "standard deviation, full scale 1", (0.04, 0.08, 0.12, 0.18, 0.26), add_noise),
        Corruption("blur", "standard deviation, side 1", (0.012, 0.02, 0.03, 0.045, 0.065), blur),
        Corruption("brightness", "added, full scale 1", (0.1, 0.2, 0.3, 0.4, 0.5), brighten),
        Corruption("jpeg", "quality of 100", (40, 25, 15, 10, 6), compress),
    )
}


def corruption(name: str) -> Corruption:
    """The corruption called `name`.

    Raises:
        UnknownName: with the nearest names.
    """
    return CORRUPTIONS[check_choice("corruption", name, CORRUPTIONS)]
