"""A Terminator and a residual network of its size, and the two optimisers that each is trained with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core.seeds import derive_seed, seeded
from qna.labs.terminator_convergence.config import TerminatorConvergenceConfig
from qna.models import Kar3, Terminator
from qna.models.terminator import TERMINATOR

TERMINATOR_NET, RESIDUAL = "terminator", "residual"
NETWORKS = (TERMINATOR_NET, RESIDUAL)
ADAMW, KAR3 = "adamw", "kar3"
OPTIMIZERS = (ADAMW, KAR3)


def contender(network: str, optimizer: str) -> str:
    """The name of a network trained by an optimiser."""
    return f"{network}-{optimizer}"


def build(
    name: str, config: TerminatorConvergenceConfig, *, channels: int, size: int, seed: int
) -> nn.Module:
    """A network for images of so many channels and pixels per axis."""
    with seeded(derive_seed(seed, "weights")):
        if name == RESIDUAL:
            return ResidualNetwork(channels, config.width, classes=10)
        return Terminator.of(
            TERMINATOR["terminator_nano_16"],
            dims=tuple(config.dim * 2**i for i in range(3)),
            img_size=size,
            in_chans=channels,
            num_classes=10,
            slow_loss=1.0,
        )


def optimize(name: str, network: nn.Module, rate: float) -> torch.optim.Optimizer:
    """Kar3, or AdamW with decay of all but a Terminator's frequencies, which decay would change."""
    if name == KAR3:
        return Kar3(network.parameters(), lr=rate)
    exempt = network.no_weight_decay() if isinstance(network, Terminator) else set()
    named = dict(network.named_parameters())
    groups = [
        {"params": [p for n, p in named.items() if n not in exempt], "weight_decay": 0.05},
        {"params": [p for n, p in named.items() if n in exempt], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=rate)


class ResidualBlock(nn.Module):
    """Two convolutions of 3 x 3 with batch norm, and a path around them: (B, C, H, W) -> (B, C', H', W')."""

    def __init__(self, dim: int, out_dim: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(dim, out_dim, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_dim)
        self.conv2 = nn.Conv2d(out_dim, out_dim, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_dim)
        around = dim == out_dim and stride == 1
        self.shortcut = nn.Identity() if around else nn.Conv2d(dim, out_dim, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class ResidualNetwork(nn.Sequential):
    """The residual network of small images (He et al., 2016): three stages, here of one block, and a mean."""

    def __init__(self, channels: int, width: int, *, classes: int):
        super().__init__(
            nn.Conv2d(channels, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            ResidualBlock(width, width, 1),
            ResidualBlock(width, 2 * width, 2),
            ResidualBlock(2 * width, 4 * width, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4 * width, classes),
        )
