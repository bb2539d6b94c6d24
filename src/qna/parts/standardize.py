"""Images (B, C, H, W) with mean 0 and variance 1, channel by channel; nothing is scaled or shifted after."""

from __future__ import annotations

import torch
from torch import Tensor, nn

EPS = 1e-5


def standardize_images(image: Tensor) -> Tensor:
    """Each channel of each image by itself: (B, C, H, W) -> the same; one position alone becomes 0."""
    # torch's own functions for this refuse maps of one position
    return torch.group_norm(image, image.shape[1], None, None, EPS, torch.backends.cudnn.enabled)


class BatchStandardization(nn.BatchNorm2d):
    """Each channel over all images of the batch, (B, C, H, W) -> the same.

    Args:
        dim: channels.
        running_stats: keep a running mean and variance in training and take them in evaluation, so that an
            image then no longer depends on the others. Without, the batch at hand decides in evaluation too.
    """

    def __init__(self, dim: int, *, running_stats: bool):
        super().__init__(dim, EPS, affine=False, track_running_stats=running_stats)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        if self.track_running_stats:
            return super().forward(input)
        # a single position becomes 0, where torch's module would refuse it
        cudnn = torch.backends.cudnn.enabled
        return torch.batch_norm(input, None, None, None, None, True, 0.0, self.eps, cudnn)
